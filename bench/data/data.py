"""Images per CPU second of hubtool's data pipeline beside torchvision's with PIL: the same files, cores and transforms.

    go build -o bin/bench-data ./bench/data
    python bench/data/data.py [--bench bin/bench-data] [--images 1000] [--rounds 5] [--workers 2] [--data DIR]

Pictures are made by make.py into a temporary folder, or are those in DIR. A round measures both programs one after the other,
each in a process of its own; a ratio is taken within a round, and medians are printed. Memory is the largest proportional set
size of a program and all its processes.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent


def family(pid: int) -> list:
    """A process and all its descendants."""
    found = [pid]
    for one in found:
        try:
            found += map(int, pathlib.Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            pass
    return found


def memory(pid: int) -> int:
    total = 0
    for one in family(pid):
        try:
            for line in pathlib.Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except OSError:
            pass
    return total


def run(command: list) -> dict:
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    peak = 0

    def watch() -> None:
        nonlocal peak
        while child.poll() is None:
            peak = max(peak, memory(child.pid))
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = child.communicate()
    watcher.join()
    if child.returncode:
        sys.exit(f"{command} failed")
    return {**json.loads(out), "memory": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bench", default="bin/bench-data")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=pathlib.Path)
    args = parser.parse_args()
    bench = os.path.abspath(args.bench)
    with tempfile.TemporaryDirectory(prefix="hubtool-bench-") as scratch:
        data = args.data or pathlib.Path(scratch)
        if not (data / "folder").exists():
            subprocess.run([sys.executable, HERE / "make.py", data, "--images", str(args.images)], check=True)
        print("| transforms | hubtool, images per CPU second | torchvision | ratio | range | memory, MB | of torchvision's |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for mode in ("train", "eval"):
            ours, theirs = [], []
            for _ in range(args.rounds):
                ours.append(run([bench, "-mode", mode, "-workers", args.workers, data / "folder"]))
                theirs.append(run([sys.executable, HERE / "torch_data.py", data / "folder", mode, "--workers", args.workers]))
            rate = {k: [r["images"] / r["cpu_seconds"] for r in v] for k, v in (("ours", ours), ("theirs", theirs))}
            ratios = [a / b for a, b in zip(rate["ours"], rate["theirs"])]
            own, other = (max(r["memory"] for r in runs) for runs in (ours, theirs))
            print(f"| {mode} | {statistics.median(rate['ours']):.0f} | {statistics.median(rate['theirs']):.0f} | "
                  f"{statistics.median(ratios):.2f} | {min(ratios):.2f}-{max(ratios):.2f} | {own / 1e6:.0f} | {own / other:.2f} |", flush=True)  # fmt: skip
        print(f"\n{theirs[0]['version']}; {args.workers} workers")
        if (data / "food").exists():
            first = [run([bench, "-mode", "first", data / "food"])["seconds_to_first_batch"] for _ in range(args.rounds)]
            print(f"first batch of 32 of 75,750 rows after the first of 8 files is there: {statistics.median(first):.2f} s ({min(first):.2f}-{max(first):.2f})")


if __name__ == "__main__":
    main()
