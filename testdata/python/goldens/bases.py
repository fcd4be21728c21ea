"""Tiny ViTs as transformers saves them, each with a batch of pixels and what the model answers."""

import json
import pathlib
import re
import shutil

import torch
from safetensors.torch import save_file
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

from . import common

LABELS = ["ape", "bee", "cat", "dög", "eel"]

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=16, patch_size=4)

# name -> (class, what differs from SMALL)
MODELS = {
    "vit": (ViTForImageClassification, {}),
    "bare": (ViTModel, dict(num_attention_heads=2, image_size=8, layer_norm_eps=1e-6)),
    "oblong": (
        ViTForImageClassification,
        dict(hidden_size=40, num_attention_heads=5, intermediate_size=72, image_size=[8, 12], patch_size=[4, 3]),
    ),
    "nobias": (
        ViTForImageClassification,
        dict(hidden_size=24, num_attention_heads=3, intermediate_size=40, image_size=12, patch_size=3, qkv_bias=False,
             layer_norm_eps=1e-3, num_hidden_layers=3),
    ),
    "tanh": (
        ViTForImageClassification,
        dict(hidden_size=16, num_attention_heads=2, intermediate_size=24, image_size=8, num_hidden_layers=1,
             hidden_act="gelu_pytorch_tanh"),
    ),
}  # fmt: skip

# Classic names, which files hold, and the names that transformers 5 uses in memory; order matters.
V5_NAMES = [
    (r"^(vit\.)?encoder\.layer\.", r"\1layers."),
    (r"attention\.attention\.(query|key|value)", lambda m: f"attention.{m[1][0]}_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
]


def v5_name(name: str) -> str:
    for pattern, replacement in V5_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def build(name: str):
    cls, changes = MODELS[name]
    config = ViTConfig(**{**SMALL, **changes})
    if cls is ViTForImageClassification:
        config.id2label = dict(enumerate(LABELS))
        config.label2id = {label: i for i, label in enumerate(LABELS)}
    model = cls(config).eval()
    common.fill(name, model.named_parameters())
    return model


def batch_of(config, images: int = 2) -> torch.Tensor:
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return common.uniform(f"pixels/{height}x{width}", (images, 3, height, width), -1, 1)


def answers(model, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        out = model(pixel_values=pixels)
    if hasattr(out, "logits"):
        return {"logits": out.logits}
    return {"last_hidden_state": out.last_hidden_state, "pooler_output": out.pooler_output}


def rewrite(source: pathlib.Path, target: pathlib.Path, rename) -> None:
    """A copy of a base whose tensors have other names."""
    shutil.copytree(source, target)
    tensors = {rename(name): t for name, t in common.load(source / "model.safetensors").items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def write(root: pathlib.Path) -> None:
    for name in MODELS:
        model, folder = build(name), root / name
        model.save_pretrained(folder)
        size = model.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        ViTImageProcessor(
            size={"height": height, "width": width}, image_mean=[0.5] * 3, image_std=[0.5] * 3, resample=2
        ).save_pretrained(folder)
        pixels = batch_of(model.config)
        common.save(folder / "batch.safetensors", pixel_values=pixels, **answers(model, pixels))

    rewrite(root / "vit", root / "vit-v5names", v5_name)
    rewrite(root / "vit", root / "vit-noprefix", lambda name: name.removeprefix("vit."))
    model = build("vit")
    model.save_pretrained(root / "vit-sharded", max_shard_size="30KB")
    shutil.copy(root / "vit" / "preprocessor_config.json", root / "vit-sharded")
    for name, dtype, suffix in (("vit", torch.bfloat16, "bf16"), ("vit", torch.float16, "f16"), ("bare", torch.bfloat16, "bf16")):
        folder = root / f"{name}-{suffix}"
        build(name).to(dtype).save_pretrained(folder)
        shutil.copy(root / name / "preprocessor_config.json", folder)
        # Half-precision weights, arithmetic in float32: what hubtool promises.
        widened = MODELS[name][0].from_pretrained(folder, dtype=torch.float32).eval()
        pixels = batch_of(widened.config)
        common.save(folder / "batch.safetensors", pixel_values=pixels, **answers(widened, pixels))
    for folder in root.iterdir():
        json.loads((folder / "config.json").read_text())  # a file that json cannot read must not be committed
