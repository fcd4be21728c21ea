"""Models and adapters that transformers and PEFT write, in `hubtool predict`: same logits."""

import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN, TINY, classifier, logits, pixels
from goldens import adapters, bases
from goldens.common import fill
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model

BASES = sorted(path.name for path in (GOLDEN / "bases").iterdir() if not path.name.startswith("bare"))
GOLDENS = sorted(str(path.parent.relative_to(GOLDEN)) for path in GOLDEN.glob("*/*/logits.safetensors"))
FOREIGN = {"lora/classic-names", "lora/old-config"}  # real, but this PEFT cannot load them: see the goldens' logits
MUTATING = {"lora/pissa", "lora/olora"}  # PEFT changes the base when it loads them


def size_of(base: str) -> tuple[int, int]:
    """(width, height) of a base's images."""
    size = json.loads((GOLDEN / "bases" / base / "config.json").read_text())["image_size"]
    return (size, size) if isinstance(size, int) else (size[1], size[0])


@pytest.mark.parametrize("base", BASES)
def test_model(hubtool, pictures, base):
    folder, files = GOLDEN / "bases" / base, pictures(*size_of(base))
    want = logits(classifier(folder, dtype=torch.float32), pixels(folder, files))
    np.testing.assert_allclose(hubtool.logits(folder, files), want, atol=1e-4)
    label = hubtool("predict", folder, files[0], "--json").lines()[0]["predictions"][0]["label"]
    assert label == bases.LABELS[want[0].argmax()]


@pytest.mark.parametrize("name", sorted(set(GOLDENS) - MUTATING))
def test_adapter(hubtool, pictures, name):
    base = json.loads((GOLDEN / name / "case.json").read_text())["base"]
    folder, files = GOLDEN / "bases" / base, pictures(*size_of(base))
    model = adapters.open_base(GOLDEN, base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, GOLDEN / ("lora/classifier" if name in FOREIGN else name)).eval()
    want = logits(model, pixels(folder, files))
    np.testing.assert_allclose(hubtool.logits(GOLDEN / name, files, "--base", folder), want, atol=1e-4)


@pytest.mark.parametrize("name", sorted(MUTATING))
def test_adapter_is_refused(tool, pictures, name):
    base = json.loads((GOLDEN / name / "case.json").read_text())["base"]
    tool("predict", GOLDEN / name, *pictures(16, 16), "--base", GOLDEN / "bases" / base, code=7)


CLASSIFIER = dict(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])


FRESH = {
    "lora": LoraConfig(r=16, lora_alpha=16, **CLASSIFIER),
    "loha": LoHaConfig(r=16, alpha=16, **CLASSIFIER),
    "lokr": LoKrConfig(r=16, alpha=16, **CLASSIFIER),
}


@pytest.mark.parametrize("method", FRESH)
def test_fresh_adapter(hubtool, digits, tmp_path, method):
    """The guide's adapters on tiny-vit, base found from the path that PEFT wrote into the config."""
    model = get_peft_model(classifier(TINY, digits.names), FRESH[method])
    fill("fresh", [(n.replace(".default", ""), p) for n, p in model.named_parameters() if p.requires_grad])
    model.save_pretrained(tmp_path)
    want = logits(model.eval(), pixels(TINY, digits.image_files))
    np.testing.assert_allclose(hubtool.logits(tmp_path, digits.image_files), want, atol=2e-4 * np.abs(want).max())
