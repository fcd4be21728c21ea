"""`hubtool merge` against merge_and_unload: same bits, and a checkpoint that transformers loads without a word."""

import copy
import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from conftest import GOLDEN, TINY, classifier, logits, pixels
from goldens import adapters, common
from goldens.bases import LABELS
from goldens.common import fill
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoConfig, ViTForImageClassification, pipeline

MUTATING = {"lora/pissa", "lora/olora"}  # PEFT changes the base when it loads them
FOREIGN = {"lora/classic-names", "lora/both-names", "lora/old-config"}  # merged, they are lora/classifier
GOLDENS = sorted(str(path.parent.relative_to(GOLDEN)) for path in GOLDEN.glob("*/*/merged.safetensors"))


def tensors(folder) -> dict[str, torch.Tensor]:
    found = {}
    for shard in sorted(folder.glob("*.safetensors")):
        found.update(common.load(shard))
    return found


def bits(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.int32 if tensor.dtype == torch.float32 else torch.int16).numpy()


def same_bits(got: dict, want: dict) -> None:
    assert got.keys() == want.keys()
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype and got[name].shape == tensor.shape, name
        np.testing.assert_array_equal(bits(got[name]), bits(tensor), err_msg=name)


def loads_in_transformers(folder) -> ViTForImageClassification:
    model, report = ViTForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


@pytest.fixture(scope="module")
def reference_processor() -> bool:
    """Does torch add in the order of the goldens here? Other processors than x86 with FMA have kernels of their own."""
    model = PeftModel.from_pretrained(adapters.open_base(GOLDEN, "vit"), GOLDEN / "lora/rank12").merge_and_unload()
    stored = common.load(GOLDEN / "lora/rank12/merged.safetensors")
    weight = "vit.encoder.layer.0.attention.attention.query.weight"
    return torch.equal(stored[weight], model.vit.layers[0].attention.q_proj.weight)


@pytest.mark.parametrize("rounding", ["peft", "peft-safe"])
@pytest.mark.parametrize("name", sorted(set(GOLDENS) - MUTATING))
def test_golden(tool, tmp_path, name, rounding, no_warnings):
    case = json.loads((GOLDEN / name / "case.json").read_text())
    base = GOLDEN / "bases" / case["base"]
    summary = tool("merge", GOLDEN / name, "--base", base, "--out", tmp_path / "out", "--rounding", rounding, "--json").json()

    facts = case["merged"]
    if rounding == "peft-safe":
        facts = case.get("merged_safe", facts)
    assert summary["tensors"]["merged"] + summary["tensors"]["copied"] + summary["tensors"]["added"] == facts["tensors"]
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "out").glob("*.safetensors")}
    assert files == facts["sha256"]
    assert files == {shard["name"]: shard["sha256"] for shard in summary["shards"]}
    model = loads_in_transformers(tmp_path / "out")
    assert model.config.architectures == ["ViTForImageClassification"]
    assert list(model.config.id2label.values()) == LABELS or case["base"].startswith("bare")


CLASSIFIER = dict(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
FRESH = {
    "lora": LoraConfig(r=16, lora_alpha=24, **CLASSIFIER),
    "all-linear": LoraConfig(r=12, lora_alpha=32, target_modules="all-linear", modules_to_save=["classifier"]),
    "dora": LoraConfig(r=8, use_dora=True, **CLASSIFIER),
    "loha": LoHaConfig(r=6, alpha=16, **CLASSIFIER),
    "lokr": LoKrConfig(r=3, alpha=16, **CLASSIFIER),
}


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def tiny(request, tmp_path_factory):
    """tiny-vit, a bare ViTModel, in one of two dtypes."""
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(TINY, folder, dirs_exist_ok=True)
    config = json.loads((TINY / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": request.param}))  # which transformers loads it in
    stored = {name: t.to(getattr(torch, request.param)) for name, t in common.load(TINY / "model.safetensors").items()}
    common.save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("safe", [False, True], ids=["plain", "safe"])
@pytest.mark.parametrize("method", FRESH)
def test_fresh(tool, tiny, digits, tmp_path, method, safe, reference_processor):
    """Adapters of useful size on a real base: bit for bit what merge_and_unload gives, and the same logits."""
    model = get_peft_model(classifier(tiny, digits.names), copy.deepcopy(FRESH[method]))
    fill(method, [(n.replace(".default", ""), p) for n, p in model.named_parameters() if p.requires_grad])
    model.save_pretrained(tmp_path / "adapter")
    model = PeftModel.from_pretrained(classifier(tiny, digits.names), tmp_path / "adapter")
    model.merge_and_unload(safe_merge=safe).save_pretrained(tmp_path / "want")

    rounding = "peft-safe" if safe else "peft"
    tool("merge", tmp_path / "adapter", "--base", tiny, "--out", tmp_path / "out", "--rounding", rounding)
    got, want = tensors(tmp_path / "out"), tensors(tmp_path / "want")
    if reference_processor:
        same_bits(got, want)
    else:
        for name, tensor in want.items():
            np.testing.assert_allclose(got[name].float(), tensor.float(), rtol=2**-7, atol=1e-6, err_msg=name)

    values = pixels(tiny, digits.image_files)
    mine, theirs = loads_in_transformers(tmp_path / "out").float(), classifier(tmp_path / "want").float()
    np.testing.assert_allclose(logits(mine, values), logits(theirs, values), atol=1e-4 if reference_processor else 1e-2)


def test_guide_base_becomes_a_classifier(tool, tmp_path, pictures):
    """A bare ViTModel base gains the prefix and the head, loses its pooler, and answers like the adapter did."""
    name, base = GOLDEN / "lora/bare", GOLDEN / "bases/bare"
    tool("merge", name, "--base", base, "--out", tmp_path / "out")
    want, got = (json.loads(path.read_text()) for path in (name / "merged_config.json", tmp_path / "out/config.json"))
    assert got["architectures"] == want["architectures"] == ["ViTForImageClassification"]
    assert AutoConfig.from_pretrained(tmp_path / "out").num_labels == 5
    files = pictures(8, 8)
    model = PeftModel.from_pretrained(adapters.open_base(GOLDEN, "bare"), name).eval()
    np.testing.assert_allclose(tool.logits(tmp_path / "out", files), logits(model, pixels(base, files)), atol=1e-4)


def test_weights_and_order_of_several_adapters(tool, tmp_path, reference_processor):
    """merge A*0.5 B adds in that order, rounding after each one, as PEFT does."""
    base = GOLDEN / "bases/vit"
    model = PeftModel.from_pretrained(adapters.open_base(GOLDEN, "vit"), GOLDEN / "lora/query-value", adapter_name="a")
    model.load_adapter(GOLDEN / "lora/all-linear", adapter_name="b")
    for module in model.modules():
        if isinstance(module, LoraLayer) and "a" in module.scaling:
            module.set_scale("a", 0.5)
    model.base_model.set_adapter(["a", "b"])
    model.base_model.merge_and_unload(adapter_names=["a", "b"]).save_pretrained(tmp_path / "want")
    tool("merge", f"{GOLDEN}/lora/query-value*0.5", GOLDEN / "lora/all-linear", "--base", base, "--out", tmp_path / "out")
    got, want = tensors(tmp_path / "out"), tensors(tmp_path / "want")
    if reference_processor:
        same_bits(got, want)
    for name, tensor in want.items():
        np.testing.assert_allclose(got[name], tensor, atol=1e-6, err_msg=name)


def test_shards_stay(tool, tmp_path):
    base = GOLDEN / "bases/vit-sharded"
    tool("merge", GOLDEN / "lora/sharded", "--base", base, "--out", tmp_path / "out")
    index = "model.safetensors.index.json"
    want, got = (json.loads((folder / index).read_text()) for folder in (base, tmp_path / "out"))
    assert got["weight_map"] == want["weight_map"]
    loads_in_transformers(tmp_path / "out")


@pytest.mark.parametrize("base", ["vit-v5names", "vit-noprefix", "vit"])
@pytest.mark.parametrize("name", sorted(FOREIGN))
def test_any_spelling(tool, tmp_path, base, name):
    """Names of adapter and base in any combination merge to the same numbers, and transformers loads the result."""
    tool("merge", GOLDEN / name, "--base", GOLDEN / "bases" / base, "--out", tmp_path / "out")
    got = loads_in_transformers(tmp_path / "out").state_dict()
    model = PeftModel.from_pretrained(adapters.open_base(GOLDEN, "vit"), GOLDEN / "lora/classifier").merge_and_unload()
    for key, want in model.state_dict().items():
        np.testing.assert_allclose(got[key], want, atol=1e-6, err_msg=key)


def test_pipeline(tool, tmp_path, pictures):
    """The merged folder is all that transformers' pipeline needs: weights, labels and image settings."""
    tool("merge", GOLDEN / "lora/classifier", "--base", GOLDEN / "bases/vit", "--out", tmp_path / "out")
    classify = pipeline("image-classification", model=str(tmp_path / "out"), device="cpu")
    file = pictures(16, 16)[0]
    want = tool("predict", tmp_path / "out", file, "--json").lines()[0]["predictions"][0]
    got = classify(str(file))[0]
    assert (got["label"], pytest.approx(got["score"], abs=1e-5)) == (want["label"], want["score"])


def test_verify(tool, tmp_path):
    """verify agrees with a true merge, and exits 8 on one that differs by a bit."""
    name, base, out = GOLDEN / "lora/classifier", GOLDEN / "bases/vit", tmp_path / "out"
    tool("merge", name, "--base", base, "--out", out)
    assert tool("verify", name, out, "--base", base, "--json").json()["ok"]
    stored = common.load(out / "model.safetensors")
    bits(stored["vit.encoder.layer.1.attention.attention.value.weight"])[3, 5] ^= 1 << 20
    common.save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
    report = tool("verify", name, out, "--base", base, "--json", code=8).json()
    assert not report["ok"] and report["numbers"]["different"] == 1


@pytest.mark.parametrize("name", sorted(MUTATING))
def test_refused(tool, tmp_path, name):
    base = json.loads((GOLDEN / name / "case.json").read_text())["base"]
    tool("merge", GOLDEN / name, "--base", GOLDEN / "bases" / base, "--out", tmp_path / "out", code=7)
    assert not (tmp_path / "out").exists()


def test_verify_on_images(tool, tmp_path, pictures):
    """With images verify compares what both models answer, and finds a head that answers otherwise."""
    name, base, out, images = GOLDEN / "lora/classifier", GOLDEN / "bases/vit", tmp_path / "out", tmp_path / "images"
    images.mkdir()
    for picture in pictures(16, 16):
        shutil.copy(picture, images)
    tool("merge", name, "--base", base, "--out", out)
    seen = tool("verify", name, out, "--base", base, "--images", images, "--json").json()
    assert seen["ok"] and seen["behaviour"]["images"] == 3
    assert seen["behaviour"]["argmax_changes"] == 0 and seen["behaviour"]["max_abs_logit"] < 1e-4
    assert seen["numbers"]["elements_checked"] == sum(t.numel() for t in common.load(out / "model.safetensors").values())
    sampled = tool("verify", name, out, "--base", base, "--rows", 2, "--json").json()
    assert sampled["ok"] and sampled["numbers"]["elements_checked"] < seen["numbers"]["elements_checked"]

    stored = common.load(out / "model.safetensors")
    stored["classifier.weight"] *= -1
    common.save_file(stored, out / "model.safetensors", metadata={"format": "pt"})
    seen = tool("verify", name, out, "--base", base, "--images", images, "--json", code=8).json()
    assert not seen["ok"] and seen["behaviour"]["argmax_changes"] > 0 and seen["behaviour"]["max_abs_logit"] > 0.01


def test_rounding_once(tool, tmp_path):
    """Several adapters rounded once: half a step from the sum in float64, which PEFT's rounding after each one is not."""
    base, names, weights = GOLDEN / "bases/vit-bf16", ["lora/bf16", "lora/bf16"], [0.7, -0.4]
    original = {n: t.double() for n, t in adapters.open_base(GOLDEN, "vit-bf16").state_dict().items()}
    exact = dict(original)
    for name, weight in zip(names, weights):
        model = PeftModel.from_pretrained(adapters.open_base(GOLDEN, "vit-bf16").double(), GOLDEN / name).merge_and_unload()
        for key, tensor in model.state_dict().items():
            if "classifier" not in key:
                exact[key] = exact[key] + weight * (tensor - original[key])
    refs = [f"{GOLDEN}/{name}*{weight}" for name, weight in zip(names, weights)]
    worst = {}
    for rounding in ("once", "peft"):
        tool("merge", *refs, "--base", base, "--out", tmp_path / rounding, "--rounding", rounding)
        got, worst[rounding] = loads_in_transformers(tmp_path / rounding).state_dict(), 0
        for key, want in exact.items():
            if "classifier" not in key and not torch.equal(want, original[key]):
                step = torch.exp2(torch.floor(torch.log2(want.abs().clamp_min(1e-30))) - 7)
                worst[rounding] = max(worst[rounding], ((got[key].double() - want).abs() / step).max().item())
    assert 0.4 < worst["once"] <= 0.501 < worst["peft"]


@pytest.mark.parametrize("config", [LoraConfig(r=4, target_modules=["q_proj"]), LoraConfig(r=4, use_dora=True, target_modules=["q_proj"]),
                                    LoHaConfig(r=4, target_modules=["q_proj"]), LoKrConfig(r=2, target_modules=["q_proj"])], ids=["lora", "dora", "loha", "lokr"])  # fmt: skip
def test_float64(tool, tmp_path, config):
    """Why float64 bases are refused: PEFT widens a float32 adapter for them and multiplies in float64: hardly an element is the float32 update's."""
    model = get_peft_model(adapters.open_base(GOLDEN, "vit"), copy.deepcopy(config))
    fill("float64", [(n, p) for n, p in model.named_parameters() if p.requires_grad])
    model.save_pretrained(tmp_path / "adapter")
    adapters.open_base(GOLDEN, "vit").double().save_pretrained(tmp_path / "base")
    deltas = {}
    for dtype in (torch.float32, torch.float64):
        loaded = PeftModel.from_pretrained(ViTForImageClassification.from_pretrained(tmp_path / "base", dtype=dtype), tmp_path / "adapter")
        layer = loaded.base_model.model.vit.layers[0].attention.q_proj
        deltas[dtype] = layer.get_delta_weight("default").detach()
        assert deltas[dtype].dtype == dtype
    assert (deltas[torch.float32].double() != deltas[torch.float64]).float().mean() > 0.9
    tool("merge", tmp_path / "adapter", "--base", tmp_path / "base", "--out", tmp_path / "out", code=6)
    assert not (tmp_path / "out").exists()
