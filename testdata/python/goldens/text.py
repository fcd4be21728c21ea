"""Adapters on tiny text models, which hubtool merges without knowing the architecture: names, shapes and layouts differ."""

import copy
import hashlib
import pathlib
import tempfile

import torch
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from . import common

LLAMA = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=70)
GPT2 = dict(n_embd=32, n_layer=2, n_head=4, vocab_size=70, n_positions=20, bos_token_id=0, eos_token_id=0)

# folder -> (class, config, dtype, keyword arguments of save_pretrained)
BASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**LLAMA, tie_word_embeddings=False), torch.bfloat16, {}),
    "llama-f16": (LlamaForCausalLM, LlamaConfig(**LLAMA, tie_word_embeddings=False), torch.float16, {}),
    "llama-tied": (LlamaForCausalLM, LlamaConfig(**LLAMA, tie_word_embeddings=True), torch.float32, {}),
    "gpt2": (GPT2LMHeadModel, GPT2Config(**GPT2), torch.float32, {}),
    "gpt2-bf16": (GPT2LMHeadModel, GPT2Config(**GPT2), torch.bfloat16, {}),
}


def lora(*targets: str, **changes) -> LoraConfig:
    return LoraConfig(**{**dict(r=12, lora_alpha=32, target_modules=list(targets)), **changes})


def untied(model):
    """The same model with a head of its own. PEFT merges into a tied embedding in place and so changes the head as well."""
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    return model


# folder -> (base, config of the adapter, what is done to the base before)
CASES = {
    "llama": ("llama", lora("q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"), None),
    "llama-rank200": ("llama", lora("k_proj", r=200, lora_alpha=3), None),
    "llama-f16": ("llama-f16", lora("q_proj", "up_proj", "lm_head", use_rslora=True), None),
    "llama-embedding": ("llama", lora("embed_tokens", "v_proj"), None),
    "llama-saved-head": ("llama", lora("q_proj", modules_to_save=["lm_head", "norm"]), None),
    "llama-tied": ("llama-tied", lora("q_proj"), None),
    "llama-tied-embedding": ("llama-tied", lora("embed_tokens", "q_proj"), untied),
    "llama-tied-head": ("llama-tied", lora("lm_head", "q_proj"), untied),
    "llama-dora": ("llama", lora("q_proj", "down_proj", use_dora=True), None),
    "gpt2": ("gpt2", lora("c_attn", "c_proj", "c_fc", bias="lora_only"), None),
    "gpt2-bf16": ("gpt2-bf16", lora("c_attn", "c_proj"), None),
    "gpt2-dora": ("gpt2", lora("c_attn", "c_proj", "c_fc", use_dora=True), None),
    "gpt2-bf16-dora": ("gpt2-bf16", lora("c_attn", "c_fc", use_dora=True), None),
    "gpt2-embedding-dora": ("gpt2", lora("wte", "c_attn", use_dora=True), untied),
    "gpt2-ia3": ("gpt2", IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"]), None),
    "gpt2-embedding": ("gpt2", lora("wte", "c_attn"), untied),
}  # fmt: skip

RANGES = {"lora_": (-0.3, 0.3), "ia3_l": (0.7, 1.3), "magnitude": (0.6, 1.4), "norm": (0.8, 1.2), "ln_": (0.8, 1.2), "": (-0.35, 0.35)}


def fill(seed: str, named_parameters) -> None:
    with torch.no_grad():
        for name, parameter in named_parameters:
            low, high = next(r for part, r in RANGES.items() if part in name)
            parameter.copy_(common.uniform(f"{seed}/{name}", parameter.shape, low, high))


def open_base(root: pathlib.Path, name: str):
    cls = BASES[name][0]
    model = cls.from_pretrained(root / "bases" / name)
    model.name_or_path = model.config._name_or_path = f"hubtool-test/{name}"
    return model.eval()


def write_base(root: pathlib.Path, name: str) -> None:
    cls, config, dtype, how = BASES[name]
    torch.manual_seed(0)
    model = cls(copy.deepcopy(config))
    fill("text", model.named_parameters())
    model.to(dtype).save_pretrained(root / "bases" / name, **how)


def merged(root: pathlib.Path, name: str, safe: bool) -> dict[str, str]:
    base, _, prepare = CASES[name]
    model = open_base(root, base)
    if prepare:
        model = prepare(model)
    model = PeftModel.from_pretrained(model, root / "adapters" / name).merge_and_unload(safe_merge=safe)
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch)
        model.save_pretrained(out, **BASES[base][3])
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("*.safetensors"))}


def make(root: pathlib.Path, name: str) -> None:
    base, config, prepare = CASES[name]
    folder = root / "adapters" / name
    model = open_base(root, base)
    model = get_peft_model(model, copy.deepcopy(config))
    fill(name, [(n.replace(".default", ""), p) for n, p in model.named_parameters() if p.requires_grad])
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    facts = dict(base=base, untie=prepare is not None, merged=merged(root, name, False), merged_safe=merged(root, name, True))
    common.save_json(folder / "case.json", facts)


def write(root: pathlib.Path) -> None:
    for name in BASES:
        write_base(root, name)
    for name in CASES:
        make(root, name)
