"""`hubtool merge` of text checkpoints of useful size, every linear layer adapted, against merge_and_unload: whole files are equal.

A base has one layer, or several, for each of RANKS, so that one merge of a method shows all of them.
"""

import hashlib
import json
import pathlib
import shutil

import pytest
import torch
from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from test_merge import reference_processor  # noqa: F401
from transformers import LlamaConfig, LlamaForCausalLM

RANKS = [4, 8, 12, 16, 64, 128, 192]
WIDE = [193, 256, 320, 384, 385, 512, 768]  # torch adds such sums in blocks, which differ between processors
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIZES = {
    # sizes of layers, layers, and the largest file: 100 MB and 2 GB of bfloat16 in several files
    "small": (dict(hidden_size=768, intermediate_size=2048, num_attention_heads=12, num_key_value_heads=4, vocab_size=8000), 7, "40MB"),
    "large": (dict(hidden_size=2048, intermediate_size=5632, num_attention_heads=32, num_key_value_heads=8, vocab_size=32000), 21, "700MB"),
}
METHODS = {
    "lora": (LoraConfig, dict(lora_alpha=24)),
    "lora-safe": (LoraConfig, dict(lora_alpha=24)),
    "lora-wide": (LoraConfig, dict(lora_alpha=24)),
    "dora": (LoraConfig, dict(lora_alpha=24, use_dora=True)),
    "loha": (LoHaConfig, dict(alpha=24)),
    "lokr": (LoKrConfig, dict(alpha=24, decompose_both=True)),
    "adalora": (AdaLoraConfig, dict(lora_alpha=24, init_r=max(RANKS), total_step=10)),
}


def base(folder: pathlib.Path, size: str, dtype: torch.dtype) -> pathlib.Path:
    sizes, layers, shard = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(**sizes, num_hidden_layers=layers, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder / "new")
    # transformers orders the tensors of a model that it has loaded in another way, which is the one of merged models.
    LlamaForCausalLM.from_pretrained(folder / "new", dtype="auto").save_pretrained(folder, max_shard_size=shard)
    shutil.rmtree(folder / "new")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def rank_of(module: str, ranks=RANKS) -> int:
    return ranks[int(module.split("layers.")[1].split(".")[0]) % len(ranks)]


def adapter(folder: pathlib.Path, method: str, base_folder: pathlib.Path) -> pathlib.Path:
    """An adapter of random numbers: its names and shapes come from PEFT, on the meta device."""
    cls, settings = METHODS[method]
    config = LlamaConfig.from_pretrained(base_folder)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    layers = range(config.num_hidden_layers)
    if cls is AdaLoraConfig:
        peft_config = cls(target_modules=MODULES, **settings)
    else:
        pattern = {rf"layers\.{i}\..*": rank_of(f"layers.{i}.", WIDE if method == "lora-wide" else RANKS) for i in layers}
        peft_config = cls(r=8, target_modules=MODULES, rank_pattern=pattern, **settings)
    model = get_peft_model(model, peft_config)
    generator = torch.Generator().manual_seed(1)
    tensors, masks = {}, {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or "ranknum" in name:
            continue
        shape, module = list(parameter.shape), name.replace(".default", "")
        if cls is AdaLoraConfig:  # with the ranks that training would have left
            kept = rank_of(name)
            shape[1 if ".lora_B" in name else 0] = kept
            if ".lora_E" in name:
                masks[module.removeprefix("base_model.model.")] = [k < kept for k in range(max(RANKS))]
        low, high = (0.5, 1.5) if "magnitude" in name else (-0.1, 0.1)
        tensors[module] = torch.rand(shape, generator=generator) * (high - low) + low
    model.peft_config["default"].base_model_name_or_path = str(base_folder)
    folder.mkdir()
    if masks:
        model.peft_config["default"].rank_pattern = masks
    model.peft_config["default"].inference_mode = True
    model.peft_config["default"].save_pretrained(folder)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def hashes(folder: pathlib.Path) -> dict[str, str]:
    found = {}
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.index.json")]):
        with path.open("rb") as f:
            found[path.name] = hashlib.file_digest(f, "sha256").hexdigest()
    return found


def merged_by_peft(base_folder, adapter_folder, out, safe: bool, shard: str) -> None:
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base_folder, dtype="auto"), adapter_folder)
    model.merge_and_unload(safe_merge=safe).save_pretrained(out, max_shard_size=shard)


def same_as_peft(tool, tmp_path, size: str, base_folder, method: str) -> None:
    source = adapter(tmp_path / "adapter", method, base_folder)
    safe = method.endswith("safe")
    made = tool("merge", source, "--out", tmp_path / "got", "--rounding", "peft-safe" if safe else "peft", "--json").json()
    layers = json.loads((base_folder / "config.json").read_text())["num_hidden_layers"]
    assert made["tensors"]["merged"] == layers * len(MODULES)
    got = hashes(tmp_path / "got")
    assert {shard["name"]: shard["sha256"] for shard in made["shards"]}.items() <= got.items()
    assert got != hashes(base_folder)
    merged_by_peft(base_folder, source, tmp_path / "want", safe, SIZES[size][2])
    assert got == hashes(tmp_path / "want")


@pytest.fixture(scope="module", params=["bfloat16", "float32"])
def small(request, tmp_path_factory):
    return base(tmp_path_factory.mktemp(request.param) / "base", "small", getattr(torch, request.param))


@pytest.mark.parametrize("method", METHODS)
def test_small(tool, tmp_path, small, method, reference_processor):  # noqa: F811
    if not reference_processor:
        pytest.skip("torch adds in another order on this processor")
    if method == "lora-safe" and "float32" in str(small):
        pytest.skip("is the same as the plain merge")
    same_as_peft(tool, tmp_path, "small", small, method)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return base(tmp_path_factory.mktemp("large") / "base", "large", torch.bfloat16)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_large(tool, tmp_path, large, method, reference_processor):  # noqa: F811
    if not reference_processor:
        pytest.skip("torch adds in another order on this processor")
    same_as_peft(tool, tmp_path, "large", large, method)
