"""Numbers that are the same on every machine, and how they are stored."""

import json
import pathlib
import zlib

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file


def uniform(key: str, shape, low: float, high: float) -> torch.Tensor:
    """float32 numbers in [low, high) that depend on nothing but `key`: torch's own generators differ between processors."""
    unit = np.random.default_rng(zlib.crc32(key.encode())).random(tuple(shape), dtype=np.float32)
    return torch.from_numpy(np.float32(low) + unit * np.float32(high - low))


# First match wins. Wide enough that a wrong scale, order or transpose shows in the logits.
RANGES = [
    ("layernorm", ".weight", (0.8, 1.2)),
    ("lora_magnitude_vector", "", (0.6, 1.4)),
    ("ia3_l", "", (0.7, 1.3)),
    ("lora_", "", (-0.3, 0.3)),
    ("hada_", "", (-0.5, 0.5)),
    ("lokr_", "", (-0.3, 0.3)),
    ("cls_token", "", (-0.5, 0.5)),
    ("position_embeddings", "", (-0.5, 0.5)),
    ("", ".weight", (-0.35, 0.35)),
    ("", ".bias", (-0.1, 0.1)),
]


def fill(seed: str, named_parameters) -> None:
    """Replace every parameter by numbers drawn for its name, so that none is zero or at its initial value."""
    with torch.no_grad():
        for name, parameter in named_parameters:
            low, high = next(r for part, end, r in RANGES if part in name and name.endswith(end))
            parameter.copy_(uniform(f"{seed}/{name}", parameter.shape, low, high))


def save(path: pathlib.Path, **tensors: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, path)


def load(path: pathlib.Path) -> dict[str, torch.Tensor]:
    with safe_open(path, "pt") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}


def save_json(path: pathlib.Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
