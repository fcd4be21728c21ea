"""How fast `hubtool merge` is on a synthetic Llama-like checkpoint, as ratios to copying it, to PEFT and to mergekit, and what
each method costs beside LoRA.

    python bench/merge/merge.py --hubtool bin/hubtool [--gigabytes 2] [--runs 3] [--resident 1,4,16]

The base lies in a temporary folder that is deleted at the end; three times its size must be free. Each way is run in turn,
so that other users of the machine disturb all of them; medians are compared. Page caches are dropped before every run where
that is allowed. --resident only measures memory, of every method, on bases of these sizes that are holes on the disk: what is
written is not, so that as much must be free. mergekit is measured where mergekit-yaml is on the PATH: `pip install mergekit==0.1.5`
in a virtual environment of its own, whose Python then runs this.
"""

import argparse
import json
import math
import multiprocessing
import os
import pathlib
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

HIDDEN, MLP, VOCAB, RANK, SHARDS = 2048, 5632, 32000, 16, 4
MODULES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (512, HIDDEN), "self_attn.v_proj": (512, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
           "mlp.gate_proj": (MLP, HIDDEN), "mlp.up_proj": (MLP, HIDDEN), "mlp.down_proj": (HIDDEN, MLP)}  # fmt: skip



def low_rank(o: int, n: int) -> dict:
    return {"lora_A.weight": (RANK, n), "lora_B.weight": (o, RANK)}


def kronecker(o: int, n: int) -> dict:
    """LoKr splits both sizes as evenly as their divisors allow."""

    def split(size):
        small = max(m for m in range(1, math.isqrt(size) + 1) if size % m == 0)
        return small, size // small

    (l, k), (m, p) = split(o), split(n)
    if 2 * RANK >= max(k, p):
        return {"lokr_w1": (l, m), "lokr_w2": (k, p)}
    return {"lokr_w1": (l, m), "lokr_w2_a": (k, RANK), "lokr_w2_b": (RANK, p)}


# method -> its config, and the shapes of its tensors for a module [out, in]
METHODS = {
    "lora": (dict(peft_type="LORA", r=RANK, lora_alpha=2 * RANK), low_rank),
    "dora": (dict(peft_type="LORA", r=RANK, lora_alpha=2 * RANK, use_dora=True),
             lambda o, n: {**low_rank(o, n), "lora_magnitude_vector": (o,)}),
    "loha": (dict(peft_type="LOHA", r=RANK, alpha=2 * RANK),
             lambda o, n: {"hada_w1_a": (o, RANK), "hada_w1_b": (RANK, n), "hada_w2_a": (o, RANK), "hada_w2_b": (RANK, n)}),
    "lokr": (dict(peft_type="LOKR", r=RANK, alpha=2 * RANK), kronecker),
    "adalora": (dict(peft_type="ADALORA", init_r=RANK, lora_alpha=2 * RANK, total_step=10),
                lambda o, n: {"lora_A": (RANK, n), "lora_B": (o, RANK), "lora_E": (RANK, 1)}),
}  # fmt: skip

PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
"""


def save_holes(shapes: dict, path: pathlib.Path) -> None:
    """A safetensors file of bfloat16 zeros that take no room on the disk."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = 2 * math.prod(shape)
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[at, at + size])
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        f.truncate(8 + len(text) + at)


def make(root: pathlib.Path, gigabytes: float, holes: bool = False) -> None:
    # In a process of its own: what a parent has in memory counts as its children's.
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    layer = sum(o * i for o, i in MODULES.values()) + 2 * HIDDEN
    layers = max(SHARDS, round((gigabytes * 1e9 / 2 - 2 * VOCAB * HIDDEN) / layer))
    config = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_size=HIDDEN, intermediate_size=MLP, num_hidden_layers=layers,
                  num_attention_heads=32, num_key_value_heads=8, vocab_size=VOCAB, tie_word_embeddings=False, dtype="bfloat16")  # fmt: skip
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for i in range(layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in MODULES.items()}
        shapes |= {f"model.layers.{i}.{norm}_layernorm.weight": (HIDDEN,) for norm in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    base, names, weight_map, size = root / "base", list(shapes), {}, 0
    base.mkdir()
    for k in range(SHARDS):
        name = f"model-{k + 1:05}-of-{SHARDS:05}.safetensors"
        part = names[len(names) * k // SHARDS : len(names) * (k + 1) // SHARDS]
        if holes:
            save_holes({n: shapes[n] for n in part}, base / name)
        else:
            save_file({n: torch.randn(shapes[n]).mul_(0.02).to(torch.bfloat16) for n in part}, base / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
        size += sum(2 * math.prod(shapes[n]) for n in part)
    (base / "config.json").write_text(json.dumps(config))
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))

    def adapter(folder: str, config: dict, tensors: dict) -> None:
        (root / folder).mkdir()
        common = dict(base_model_name_or_path=str(base), target_modules=[m.split(".")[1] for m in MODULES])
        (root / folder / "adapter_config.json").write_text(json.dumps({**common, **config}))
        save_file(tensors, root / folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def tensors(method: str, layers) -> dict:
        return {f"base_model.model.model.layers.{i}.{name}.{part}": torch.randn(shape) * 0.02
                for i in layers for name, (o, n) in MODULES.items() for part, shape in METHODS[method][1](o, n).items()}  # fmt: skip

    for method, (config, _) in METHODS.items():
        adapter(method, config, tensors(method, range(layers)))
    # The smallest matrix of one layer: all else is copied, through the same loop.
    one = {k: v for k, v in tensors("lora", [0]).items() if "k_proj" in k}
    adapter("nearly-nothing", METHODS["lora"][0] | dict(target_modules=["model.layers.0.self_attn.k_proj"]), one)


def timed(command: list) -> tuple[float, float, float]:
    """Seconds, seconds of processors, and the largest resident set in MB."""
    subprocess.run(["sync"], check=True)
    try:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        pass
    start = time.perf_counter()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{command[0]} failed")
    subprocess.run(["sync"], check=True)
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def made(root: pathlib.Path, *args) -> None:
    """make in a process of its own."""
    maker = multiprocessing.get_context("spawn").Process(target=make, args=(root, *args))
    maker.start()
    maker.join()
    if maker.exitcode:
        sys.exit("making the checkpoint failed")


def resident(hubtool: str, sizes: list[float]) -> None:
    """Print the largest resident set of every method on bases of some sizes."""
    print("| GB | " + " | ".join(METHODS) + " |\n|" + "---|" * (len(METHODS) + 1))
    for gigabytes in sizes:
        with tempfile.TemporaryDirectory(prefix="hubtool-bench-") as scratch:
            root = pathlib.Path(scratch)
            made(root, gigabytes, True)
            row = []
            for method in METHODS:
                row.append(timed([hubtool, "merge", root / method, "--base", root / "base", "--out", root / "out", "--quiet"])[2])
                shutil.rmtree(root / "out")
            print(f"| {gigabytes:g} | " + " | ".join(f"{mb:.0f} MB" for mb in row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hubtool", default="bin/hubtool")
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--resident", help="only measure memory, on bases of these sizes in GB: 1,4,16")
    args = parser.parse_args()
    hubtool = os.path.abspath(args.hubtool)
    if args.resident:
        resident(hubtool, [float(size) for size in args.resident.split(",")])
        return
    with tempfile.TemporaryDirectory(prefix="hubtool-bench-") as scratch:
        root = pathlib.Path(scratch)
        made(root, args.gigabytes)
        out, base, cache = root / "out", root / "base", root / "cache"
        ways = {f"hubtool merge, {method}": [hubtool, "merge", root / method, "--base", base, "--out", out, "--quiet"] for method in METHODS}
        ways |= {
            "the same loop, hardly any arithmetic": [hubtool, "merge", root / "nearly-nothing", "--base", base, "--out", out, "--quiet"],
            "cp -r": ["cp", "-r", base, out],
            "PEFT: load, merge_and_unload, save": [sys.executable, "-c", PEFT, base, root / "lora", out],
        }
        if mergekit := shutil.which("mergekit-yaml"):
            # base+adapter makes mergekit merge with PEFT into a folder of its own, whose tensors it then copies.
            models = [dict(model=f"{base}+{root / 'lora'}")]
            (root / "mergekit.yaml").write_text(json.dumps(dict(merge_method="passthrough", dtype="bfloat16", models=models)))
            command = [mergekit, root / "mergekit.yaml", out, "--no-copy-tokenizer", "--lora-merge-cache", cache, "--quiet"]
            ways["mergekit: passthrough of base+adapter"] = command
        taken: dict[str, list] = {name: [] for name in ways}
        for _ in range(args.runs):
            for name, command in ways.items():
                taken[name].append(timed(command))
                shutil.rmtree(out)
                shutil.rmtree(cache, ignore_errors=True)
        size = sum(p.stat().st_size for p in base.iterdir()) / 1e9
    own, own_cpu = (statistics.median(run[i] for run in taken["hubtool merge, lora"]) for i in range(2))
    print(f"{size:.2f} GB in {SHARDS} shards, all linear layers, rank {RANK}, {args.runs} runs each, sync included\n")
    print("| way | median | range | GB/s | processors | resident | time / LoRA's | processors / LoRA's |\n|---|---|---|---|---|---|---|---|")
    for name, runs in taken.items():
        seconds = [run[0] for run in runs]
        median, cpu = statistics.median(seconds), statistics.median(run[1] for run in runs)
        print(f"| {name} | {median:.1f} s | {min(seconds):.1f}-{max(seconds):.1f} s | {size / median:.2f} | {cpu:.1f} s | "
              f"{max(run[2] for run in runs):.0f} MB | {median / own:.2f} | {cpu / own_cpu:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
