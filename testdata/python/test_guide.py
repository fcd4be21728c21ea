"""The numbers of PEFT's image-classification guide: ViT-base, Food-101's 101 classes, rank 16 on query and value."""

import pytest
import torch
from conftest import recipe
from PIL import Image
from transformers import ViTConfig, ViTImageProcessor, ViTModel

# adapter section, trainable parameters, all parameters: what print_trainable_parameters says with PEFT 0.21.2
COUNTS = {
    "lora": (dict(peft_type="LORA", r=16, lora_alpha=16), 667_493, 86_543_818),
    "loha": (dict(peft_type="LOHA", r=16, alpha=16), 1_257_317, 87_133_642),
    "lokr": (dict(peft_type="LOKR", r=16, alpha=16), 116_069, 85_992_394),
    "lokr8": (dict(peft_type="LOKR", r=8, alpha=16), 103_781, 85_980_106),
    "adalora": (dict(peft_type="ADALORA", init_r=12, target_r=8, tinit=2, tfinal=3), 520_325, 86_396_674),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A ViT-base with the layout of google/vit-base-patch16-224-in21k; its numbers do not matter."""
    folder = tmp_path_factory.mktemp("vit-base")
    with torch.device("meta"):
        model = ViTModel(ViTConfig())
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    model.save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def food(tmp_path_factory):
    """An image folder of 101 classes with two images each."""
    folder = tmp_path_factory.mktemp("food")
    for label in range(101):
        (folder / f"class-{label:03d}").mkdir()
        for i in range(2):
            Image.new("RGB", (20, 20), (label, 2 * label, 100 * i)).save(folder / f"class-{label:03d}" / f"{i}.png")
    return folder


@pytest.mark.parametrize("method", COUNTS)
def test_parameter_counts(tool, base, food, tmp_path, method):
    adapter, trainable, everything = COUNTS[method]
    config = recipe(tmp_path / "config.json", tmp_path / "out", adapter=adapter, own_transforms=False,
                    path=str(food), eval_split=None, test_size=0.1)  # fmt: skip
    result = tool("train", config, "--model", base, "--dry-run")
    line = f"trainable params: {trainable:,} || all params: {everything:,} || trainable%: {100 * trainable / everything:.4f}"
    assert line in result.out + result.err
    assert not (tmp_path / "out").exists()
