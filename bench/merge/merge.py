"""How fast `hubtool merge` is on a synthetic Llama-like checkpoint, as ratios to copying it and to PEFT.

    python bench/merge/merge.py --hubtool bin/hubtool [--gigabytes 2] [--runs 3]

The base lies in a temporary folder that is deleted at the end; three times its size must be free. Each way is run in turn,
so that other users of the machine disturb all of them; medians are compared. Page caches are dropped before every run where
that is allowed.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HIDDEN, MLP, VOCAB, RANK, SHARDS = 2048, 5632, 32000, 16, 4
MODULES = {"self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (512, HIDDEN), "self_attn.v_proj": (512, HIDDEN), "self_attn.o_proj": (HIDDEN, HIDDEN),
           "mlp.gate_proj": (MLP, HIDDEN), "mlp.up_proj": (MLP, HIDDEN), "mlp.down_proj": (HIDDEN, MLP)}  # fmt: skip

PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload().save_pretrained(sys.argv[3])
"""


def make(root: pathlib.Path, gigabytes: float) -> None:
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
    base, names, shard, weight_map, size = root / "base", list(shapes), [], {}, 0
    base.mkdir()
    for k in range(SHARDS):
        name = f"model-{k + 1:05}-of-{SHARDS:05}.safetensors"
        part = names[len(names) * k // SHARDS : len(names) * (k + 1) // SHARDS]
        shard = {n: torch.randn(shapes[n]).mul_(0.02).to(torch.bfloat16) for n in part}
        save_file(shard, base / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
        size += sum(t.numel() * 2 for t in shard.values())
    (base / "config.json").write_text(json.dumps(config))
    (base / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))

    def adapter(folder: str, config: dict, tensors: dict) -> None:
        (root / folder).mkdir()
        common = dict(peft_type="LORA", r=RANK, lora_alpha=2 * RANK, base_model_name_or_path=str(base))
        (root / folder / "adapter_config.json").write_text(json.dumps({**common, **config}))
        save_file(tensors, root / folder / "adapter_model.safetensors", metadata={"format": "pt"})

    def factors(i: int, name: str) -> dict:
        (o, n), key = MODULES[name], f"base_model.model.model.layers.{i}.{name}"
        return {f"{key}.lora_A.weight": torch.randn(RANK, n) * 0.02, f"{key}.lora_B.weight": torch.randn(o, RANK) * 0.02}

    everything = {k: v for i in range(layers) for name in MODULES for k, v in factors(i, name).items()}
    adapter("adapter", dict(target_modules=[m.split(".")[1] for m in MODULES]), everything)
    # The smallest matrix of one layer: all else is copied, through the same loop.
    adapter("nearly-nothing", dict(target_modules=["model.layers.0.self_attn.k_proj"]), factors(0, "self_attn.k_proj"))


def timed(command: list) -> tuple[float, float]:
    """Seconds, and the largest resident set in MB."""
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
    return time.perf_counter() - start, usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hubtool", default="bin/hubtool")
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    hubtool = os.path.abspath(args.hubtool)
    with tempfile.TemporaryDirectory(prefix="hubtool-bench-") as scratch:
        root = pathlib.Path(scratch)
        maker = multiprocessing.get_context("spawn").Process(target=make, args=(root, args.gigabytes))
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit("making the checkpoint failed")
        out, base = root / "out", root / "base"
        ways = {
            "hubtool merge, all linear layers": [hubtool, "merge", root / "adapter", "--base", base, "--out", out, "--quiet"],
            "the same loop, hardly any arithmetic": [hubtool, "merge", root / "nearly-nothing", "--base", base, "--out", out, "--quiet"],
            "cp -r": ["cp", "-r", base, out],
            "PEFT: load, merge_and_unload, save": [sys.executable, "-c", PEFT, base, root / "adapter", out],
        }
        taken: dict[str, list] = {name: [] for name in ways}
        for _ in range(args.runs):
            for name, command in ways.items():
                taken[name].append(timed(command))
                shutil.rmtree(out)
        size = sum(p.stat().st_size for p in base.iterdir()) / 1e9
    own = statistics.median(seconds for seconds, _ in taken["hubtool merge, all linear layers"])
    print(f"{size:.2f} GB in {SHARDS} shards, rank {RANK}, {args.runs} runs each, sync included\n")
    print("| way | median | range | GB/s | resident | time / hubtool's |\n|---|---|---|---|---|---|")
    for name, runs in taken.items():
        seconds = [s for s, _ in runs]
        median = statistics.median(seconds)
        print(f"| {name} | {median:.1f} s | {min(seconds):.1f}-{max(seconds):.1f} s | {size / median:.2f} | "
              f"{max(r for _, r in runs):.0f} MB | {median / own:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
