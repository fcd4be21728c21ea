"""Adapters that hubtool makes of adapters: PEFT loads them, and their updates are what they should be."""

import json
import shutil

import numpy as np
import pytest
import torch
from conftest import GOLDEN, logits, pixels
from goldens import adapters, common, text
from peft import PeftModel, get_peft_model
from transformers import ViTForImageClassification

BASE = GOLDEN / "bases/vit"


def merged(*folders, weights=None) -> dict[str, torch.Tensor]:
    """Weights of the base with adapters merged, in float64 as far as that goes: updates added with weights."""
    base = adapters.open_base(GOLDEN, "vit").state_dict()
    total = {name: t.double() for name, t in base.items()}
    for folder, weight in zip(folders, weights or [1] * len(folders)):
        model = PeftModel.from_pretrained(adapters.open_base(GOLDEN, "vit"), folder).merge_and_unload().state_dict()
        for name, t in model.items():
            total[name] += weight * (t.double() - base[name].double())
    return total


def close(got: dict, want: dict, atol: float = 2e-6, skip: str = "classifier") -> None:
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        if not name.startswith(skip):
            np.testing.assert_allclose(got[name], tensor, atol=atol, err_msg=name)


def test_compose_is_exact(tool, tmp_path, no_warnings):
    one, two = GOLDEN / "lora/query-value", GOLDEN / "lora/patterns"
    made = tool("compose", f"{one}*0.7", f"{two}*-0.3", "-o", tmp_path / "made", "--json").json()
    assert made["modules"] == 4 and made["relative_error"] == 0
    close(merged(tmp_path / "made"), merged(one, two, weights=[0.7, -0.3]))


@pytest.mark.parametrize("combination", ["cat", "linear"])
def test_compose_like_peft(tool, tmp_path, combination):
    names = ["lora/query-value", "lora/classifier"]
    model = PeftModel.from_pretrained(adapters.open_base(GOLDEN, "vit"), GOLDEN / names[0], adapter_name="a")
    model.load_adapter(GOLDEN / names[1], adapter_name="b")
    model.add_weighted_adapter(["a", "b"], [0.7, -0.3], "c", combination_type=combination)
    model.save_pretrained(tmp_path / "want", selected_adapters=["c"])
    tool("compose", f"{GOLDEN}/{names[0]}*0.7", f"{GOLDEN}/{names[1]}*-0.3", "-o", tmp_path / "got", "--combination", combination)
    want, got = (common.load(folder / "adapter_model.safetensors") for folder in (tmp_path / "want/c", tmp_path / "got"))
    for name, tensor in want.items():
        if "classifier" not in name:
            np.testing.assert_allclose(got[name], tensor, rtol=1e-6, atol=1e-7, err_msg=name)


def test_resize_keeps_the_best(tool, tmp_path, no_warnings):
    """At rank 5 of 12 the update is the truncated singular value decomposition, and the printed error is that one's."""
    source = GOLDEN / "lora/rank12"
    made = tool("resize", source, "-o", tmp_path / "made", "--rank", 5, "--json").json()
    base, want, got = adapters.open_base(GOLDEN, "vit").state_dict(), merged(source), merged(tmp_path / "made")
    lost = kept = 0
    for name, tensor in want.items():
        delta = tensor - base[name].double()
        if delta.ndim == 2 and delta.abs().max() > 0 and "classifier" not in name:
            u, s, vt = torch.linalg.svd(delta)
            best = u[:, :5] * s[:5] @ vt[:5]
            np.testing.assert_allclose(got[name] - base[name].double(), best, atol=5e-6, err_msg=name)
            lost, kept = lost + (s[5:] ** 2).sum(), kept + (s**2).sum()
    assert made["relative_error"] == pytest.approx((lost / kept).sqrt().item(), rel=1e-4)


@pytest.mark.parametrize("choice", [["--energy", 0.9], ["--size", "9KB"]])
def test_resize_by_share_and_size(tool, tmp_path, choice, no_warnings):
    made = tool("resize", GOLDEN / "lora/all-linear-classifier", "-o", tmp_path / "made", *choice, "--json").json()
    assert (tmp_path / "made/adapter_model.safetensors").stat().st_size == made["bytes"]
    if choice[0] == "--size":
        assert made["bytes"] <= 9000
    else:
        assert made["relative_error"] <= 0.1**0.5
    PeftModel.from_pretrained(adapters.open_base(GOLDEN, "vit"), tmp_path / "made")


WORDS = torch.arange(72)[None]  # those of the golden base, and two new ones


def grown(seed: str):
    """The tiny Llama with a larger vocabulary than its base has, so that PEFT saves its embeddings, filled anew."""
    model = text.open_base(GOLDEN / "text", "llama").float()
    model.resize_token_embeddings(72)
    common.fill(seed, [(n, p) for n, p in model.named_parameters() if "embed" in n or "lm_head" in n])
    return model


@pytest.mark.parametrize("targets", [["embed_tokens", "q_proj"], ["lm_head", "q_proj"], ["q_proj"]])
def test_saved_embeddings_stay(tool, tmp_path, targets):
    """Embeddings that PEFT saves beside an adapter are in what is made of it: PEFT computes the same on a base with others."""
    model = get_peft_model(grown("grown"), text.lora(*targets)).eval()
    text.fill("a", [(n, p) for n, p in model.named_parameters() if "lora_" in n])
    model.save_pretrained(tmp_path / "a", save_embedding_layers=True)
    saved = {name for name in common.load(tmp_path / "a/adapter_model.safetensors") if "lora_" not in name}
    kept = {name.removeprefix("base_model.model.").replace(".base_layer.", ".") for name in saved}
    assert kept
    with torch.no_grad():
        want = model(WORDS).logits
    for number, command in enumerate([["compose", tmp_path / "a"], ["compose", f"{tmp_path}/a*0.25", f"{tmp_path}/a*0.75"],
                                      ["resize", tmp_path / "a", "--rank", 12], ["convert", tmp_path / "a", "--names", "transformers5"]]):  # fmt: skip
        made = tmp_path / f"made{number}"
        tool(*command, "-o", made)
        assert {name for name in common.load(made / "adapter_model.safetensors") if "lora_" not in name} == saved
        other = grown("grown")
        common.fill("other", [(n, p) for n, p in other.named_parameters() if n in kept])
        again = PeftModel.from_pretrained(other, made).eval()
        with torch.no_grad():
            np.testing.assert_allclose(again(WORDS).logits, want, atol=2e-5, rtol=1e-5)

    # llama.cpp's adapters have no place for them.
    tool("convert", tmp_path / "a", "--to", "gguf", "--base", GOLDEN / "text/bases/llama", "-o", tmp_path / "gguf", code=7)

    model = get_peft_model(grown("third"), text.lora(*targets))
    model.save_pretrained(tmp_path / "b", save_embedding_layers=True)
    failed = tool("compose", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "none", "--json", code=7).error()
    assert set(failed["details"]) == kept and not (tmp_path / "none").exists()


CONVERTED = ["loha/classifier", "loha/patterns", "loha/conv2d-effective", "lokr/whole", "lokr/low-rank", "lokr/conv2d", "lokr/both",
             "adalora/whole", "adalora/pruned", "dora/classifier", "lora/lora-bias"]  # fmt: skip


@pytest.mark.parametrize("name", CONVERTED)
def test_convert_to_lora(tool, tmp_path, name, no_warnings):
    if name == "lora/lora-bias":
        tool("convert", GOLDEN / name, "--to", "lora", "-o", tmp_path / "made", code=7)
        return
    args = ["--base", BASE] if name in ("dora/classifier", "lokr/conv2d") else []
    if name == "dora/classifier":
        tool("convert", GOLDEN / name, "--to", "lora", "-o", tmp_path / "made", code=7)
    made = tool("convert", GOLDEN / name, "--to", "lora", "-o", tmp_path / "made", "--rank", 32, *args, "--json").json()
    assert made["relative_error"] < 1e-5
    assert json.loads((tmp_path / "made/adapter_config.json").read_text())["peft_type"] == "LORA"
    close(merged(tmp_path / "made"), merged(GOLDEN / name), atol=2e-5)


@pytest.mark.parametrize("names", ["transformers4", "transformers5", "both"])
def test_convert_names(tool, tmp_path, names):
    tool("convert", GOLDEN / "lora/classic-names", "--names", names, "-o", tmp_path / "made")
    keys = common.load(tmp_path / "made/adapter_model.safetensors").keys()
    assert any(".q_proj." in key for key in keys) == (names != "transformers4")
    assert any(".query." in key for key in keys) == (names != "transformers5")
    if names != "transformers4":
        close(merged(tmp_path / "made"), merged(GOLDEN / "lora/classifier"))


def test_extract_finds_the_adapter_again(tool, tmp_path, pictures, no_warnings):
    """A merged adapter of rank 4, its classifier and changed biases are found in the difference."""
    tool("merge", GOLDEN / "lora/bias-lora-only", "--base", BASE, "--out", tmp_path / "tuned")
    args = ["extract", "--base", BASE, "--tuned", tmp_path / "tuned", "-o", tmp_path / "made"]
    made = tool(*args, "--rank", 4, "--json").json()
    assert made["modules"] >= 4 and made["relative_error"] < 1e-2
    tuned = ViTForImageClassification.from_pretrained(tmp_path / "tuned").eval()
    again = PeftModel.from_pretrained(ViTForImageClassification.from_pretrained(BASE), tmp_path / "made").eval()
    values = pixels(BASE, pictures(16, 16))
    np.testing.assert_allclose(logits(again, values), logits(tuned, values), atol=1e-3)
    shutil.rmtree(tmp_path / "made")
    assert tool(*args, "--energy", 0.5, "--json").json()["relative_error"] <= 0.5**0.5


def test_kohya(tool, tmp_path):
    made = tool("convert", GOLDEN / "lora/classifier", "--to", "kohya", "-o", tmp_path / "made", "--json").json()
    got, want = common.load(made["out"]), common.load(GOLDEN / "lora/classifier/adapter_model.safetensors")
    module = "vit.layers.0.attention.q_proj"
    down, up, alpha = (got[f"lora_unet_{module.replace('.', '_')}.{part}"] for part in ("lora_down.weight", "lora_up.weight", "alpha"))
    a, b = (want[f"base_model.model.{module}.lora_{part}.weight"] for part in "AB")
    np.testing.assert_allclose(up @ down * alpha / down.shape[0], b @ a * 6 / 4, atol=1e-6)
