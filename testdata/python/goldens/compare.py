"""Compare two golden trees: what was drawn must agree to the bit, what was computed within what processors differ by."""

import json
import math
import pathlib

import torch

from . import common

# Largest |a-b| / max(1, |b|): one step of the dtype for halves, the order of a sum for float32. Torch's kernels for older
# processors (MKL_CBWR=COMPATIBLE ATEN_CPU_CAPABILITY=default) stay below 2e-6, and 3e-5 in the loose folders.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
# AdamW divides by the gradient's own size, so its error grows where gradients are small; the factors of pissa and
# olora come out of LAPACK.
LOOSE, LOOSE_TOLERANCE = ("training/", "lora/pissa", "lora/olora"), 2e-4


def tensors(path: str, a: dict, b: dict) -> list[str]:
    if a.keys() != b.keys():
        return [f"{path}: names differ: {sorted(a.keys() ^ b.keys())}"]
    found = []
    for name, x in a.items():
        y = b[name]
        if x.dtype != y.dtype or x.shape != y.shape:
            found.append(f"{path}: {name}: {x.dtype} {tuple(x.shape)} became {y.dtype} {tuple(y.shape)}")
        elif not torch.equal(x, y):
            limit = LOOSE_TOLERANCE if path.startswith(LOOSE) else TOLERANCE.get(x.dtype, 0)
            x, y = x.double(), y.double()
            worst = ((x - y).abs() / y.abs().clamp(min=1)).max().item()
            if not worst <= limit:
                found.append(f"{path}: {name}: differs by {worst:.3g}, allowed {limit:.3g}")
    return found


def values(where: str, a, b, exact: bool) -> list[str]:
    """Differences of two decoded JSON files. Hashes count only where the tensors they stand for are equal to the bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: keys differ: {sorted(a.keys() ^ b.keys())}"]
        skip = () if exact else ("sha256",)
        return [line for key in a if key not in skip for line in values(f"{where}: {key}", a[key], b[key], exact)]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        if where.endswith(("target_modules", "exclude_modules")):
            a, b = sorted(a), sorted(b)
        return [line for i, pair in enumerate(zip(a, b)) for line in values(f"{where}[{i}]", *pair, exact)]
    if isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6):
        return []
    return [] if a == b else [f"{where}: {a!r} became {b!r}"]


def trees(old: pathlib.Path, new: pathlib.Path) -> list[str]:
    def files(root):
        return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} - {"README.md"}

    have, want = files(old), files(new)
    found = [f"{path}: not committed" for path in sorted(want - have)]
    found += [f"{path}: no longer made" for path in sorted(have - want)]
    moved = set()  # folders in which some tensor is not equal to the bit
    for path in sorted(have & want, key=lambda p: (p.endswith(".json"), p)):
        folder = pathlib.PurePath(path).parent
        if path.endswith(".safetensors"):
            if (old / path).read_bytes() != (new / path).read_bytes():
                moved.add(folder)
                found += tensors(path, common.load(old / path), common.load(new / path))
        else:
            a, b = (json.loads((root / path).read_text()) for root in (old, new))
            found += values(path, a, b, folder not in moved)
    return found
