"""Adapters that hubtool writes for llama.cpp: what llama.cpp predicts with them, and what its package gguf reads."""

import re

import gguf
import llamacpp
import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

pytestmark = pytest.mark.filterwarnings("ignore:.*embedding.*", "ignore:.*fan_in_fan_out.*")

PROMPT = [1, 5, 9, 60, 33, 20, 7, 11, 11, 40]
WORDS, HEADS, GROUPS = 64, 4, 2
SIZES = dict(vocab_size=WORDS, hidden_size=64, num_hidden_layers=2, num_attention_heads=HEADS, max_position_embeddings=128,
             bos_token_id=1, eos_token_id=2, pad_token_id=0, initializer_range=0.2)  # fmt: skip
GROUPED = dict(intermediate_size=96, num_key_value_heads=GROUPS)
GEMMA = dict(**GROUPED, head_dim=16, tie_word_embeddings=True)
SCALES = dict(embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.3, logits_scaling=2.0)

# class of the model -> llama.cpp's architecture, whether its heads rotate neighbours, and settings beside SIZES
ARCHITECTURES = {
    "LlamaForCausalLM": ("llama", True, GROUPED),
    "MistralForCausalLM": ("llama", True, dict(GROUPED, head_dim=8)),
    "GraniteForCausalLM": ("granite", True, dict(GROUPED, **SCALES)),
    "SmolLM3ForCausalLM": ("smollm3", True, dict(GROUPED, num_hidden_layers=4)),  # the fourth layer does not rotate
    "Qwen2ForCausalLM": ("qwen2", False, GROUPED),
    "Qwen3ForCausalLM": ("qwen3", False, dict(GROUPED, head_dim=16)),
    "Olmo2ForCausalLM": ("olmo2", False, GROUPED),
    "StableLmForCausalLM": ("stablelm", False, GROUPED),
    "GemmaForCausalLM": ("gemma", False, GEMMA),
    "Gemma2ForCausalLM": ("gemma2", False, dict(GEMMA, query_pre_attn_scalar=16)),
    "Gemma3ForCausalLM": ("gemma3", False, dict(GEMMA, query_pre_attn_scalar=16, num_hidden_layers=6)),  # the sixth sees all words
    "Starcoder2ForCausalLM": ("starcoder2", False, GROUPED),
    "PhiForCausalLM": ("phi2", False, dict(intermediate_size=96)),
    "Phi3ForCausalLM": ("phi3", False, dict(GROUPED, original_max_position_embeddings=128)),
    "GPT2LMHeadModel": ("gpt2", False, {}),
}


def causal(name: str, **settings):
    """A model whose head is a tensor of its own unless settings say otherwise, with norms and biases as random as all else."""
    torch.manual_seed(0)
    kind = getattr(transformers, name)
    config = kind.config_class(**{**SIZES, "tie_word_embeddings": False, **settings}, architectures=[name])
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return model


def adaptable(model) -> list[str]:
    """Names of everything that LoRA adapts and llama.cpp has an adapter for."""
    modules = {name.split(".")[-1] for name, module in model.named_modules() if type(module).__name__ in ("Linear", "Conv1D")}
    if model.config.tie_word_embeddings or model.get_output_embeddings().bias is not None:  # PEFT would save the bias whole
        modules.remove("lm_head")
    if not model.config.tie_word_embeddings:
        modules.add("wte" if hasattr(model, "transformer") else "embed_tokens")
    return sorted(modules)


def convert(tool, tmp_path, peft):
    """The file for llama.cpp, from the base's config.json alone."""
    peft.save_pretrained(tmp_path / "adapter")
    peft.get_base_model().config.save_pretrained(tmp_path / "base")
    return tool("convert", tmp_path / "adapter", "--to", "gguf", "--base", tmp_path / "base", "-o", tmp_path / "made", "--json").json()["out"]


def log_probabilities(model) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([PROMPT])).logits[0, -1].log_softmax(-1).numpy()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_llamacpp(tool, tmp_path, name):
    """llama.cpp predicts what transformers does, with the adapter and without."""
    arch, neighbours, settings = ARCHITECTURES[name]
    model = causal(name, **settings)
    llamacpp.write_base(model, arch, tmp_path / "base.gguf", neighbours)
    without = log_probabilities(model)
    peft = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=adaptable(model), init_lora_weights=False)).eval()
    adapted = log_probabilities(peft)
    assert abs(adapted - without).max() > 1
    got = llamacpp.log_probabilities(tmp_path / "base.gguf", convert(tool, tmp_path, peft), WORDS, PROMPT, [0, 1])
    # llama.cpp's GELU is a table of half precision.
    tolerance = 1e-2 if "gelu" in str(model.config) else 1e-4
    np.testing.assert_allclose(got[0], without, atol=tolerance)
    np.testing.assert_allclose(got[1], adapted, atol=tolerance)


@pytest.fixture
def llama():
    return causal("LlamaForCausalLM", **GROUPED)


@pytest.mark.parametrize("settings", [
    dict(r=4, lora_alpha=6),
    dict(r=4, lora_alpha=6, use_rslora=True, rank_pattern={"down_proj": 2}, alpha_pattern={"layers.1.self_attn.k_proj": 5}),
])  # fmt: skip
def test_updates(tool, tmp_path, llama, settings):
    """The factors in the file, multiplied as llama.cpp does, are PEFT's updates."""
    targets = [name for name in adaptable(llama) if name != "embed_tokens"]
    peft = get_peft_model(llama, LoraConfig(target_modules=targets, init_lora_weights=False, **settings))
    reader = gguf.GGUFReader(convert(tool, tmp_path, peft))
    field = lambda key: reader.get_field(key).contents()  # noqa: E731
    assert (field("general.architecture"), field("general.type"), field("adapter.type")) == ("llama", "adapter", "lora")
    alpha = field("adapter.lora.alpha")
    got = {t.name: t for t in reader.tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, llama.config.num_hidden_layers)
    layers = {name: module for name, module in peft.named_modules() if hasattr(module, "lora_A") and len(module.lora_A)}
    assert len(layers) == 2 * 7 + 1 and len(got) == 2 * len(layers)
    for name, module in layers.items():
        name = names.get_name(name.removeprefix("base_model.model.")) + ".weight"
        a, b = got[name + ".lora_a"], got[name + ".lora_b"]
        assert {a.tensor_type, b.tensor_type} == {gguf.GGMLQuantizationType.F32}
        # llama.cpp multiplies by ggml's dimensions, the fastest first: a [in, rank], b [rank, out].
        weight, rank = module.base_layer.weight, a.shape[1]
        assert (a.shape[0], b.shape[1]) == (weight.shape[1], weight.shape[0]) and b.shape[0] == rank
        want = module.get_delta_weight("default").detach().numpy()
        if ".attn_q." in name or ".attn_k." in name:
            want = llamacpp.rotated_as_neighbours(want, HEADS if ".attn_q." in name else GROUPS)
        np.testing.assert_allclose(b.data @ a.data * (alpha / rank), want, atol=1e-6, err_msg=name)


def test_refused(tool, tmp_path):
    """What llama.cpp has no place for: modules, tied ends, and models that it arranges in ways not known here."""

    def refusal(name: str, targets: list[str], **settings) -> str:
        model = causal(name, **settings)
        get_peft_model(model, LoraConfig(target_modules=targets)).save_pretrained(tmp_path / "adapter")
        model.config.save_pretrained(tmp_path / "base")
        args = ["convert", tmp_path / "adapter", "--to", "gguf", "--base", tmp_path / "base", "-o", tmp_path / "made"]
        return tool(*args, code=7).err

    tied = "one tensor for the head and the embeddings"
    assert tied in refusal("Gemma3ForCausalLM", ["embed_tokens"], **GEMMA)
    assert tied in refusal("LlamaForCausalLM", ["lm_head"], **GROUPED, tie_word_embeddings=True)
    assert re.search(r'converting "transformer.wpe": .* llama.cpp\'s gpt2 have attn.c_attn, .* and transformer.wte', refusal("GPT2LMHeadModel", ["wpe"]))
    assert "the base is GPTNeoXForCausalLM, gpt_neox," in refusal("GPTNeoXForCausalLM", ["query_key_value"])
    assert not (tmp_path / "made").exists()
