"""How fast `hubtool pull` and `push` are beside `hf download` and `hf upload`, as ratios in one run on loopback.

    python bench/hub/hub.py --hubtool bin/hubtool [--megabytes 256] [--small 500] [--runs 3]

Both clients talk to a `hubtool serve` of their own run: four large files, then many small ones. Downloads go into an empty
cache and uploads to an empty Hub every time, and the two sides take turns, so that other users of the machine disturb both.
The server is a process of its own whose work counts for neither side, but it shares the processor with them. Everything lies in
one temporary folder that is deleted at the end; 14 times --megabytes must be free.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HF = pathlib.Path(sys.executable).with_name("hf")


class Hub:
    """A Hub in an empty or a filled folder, for the time of a with block."""

    def __init__(self, hubtool: str, folder: pathlib.Path):
        self.command = [hubtool, "serve", "--dir", str(folder), "--addr", "127.0.0.1:0"]

    def __enter__(self) -> str:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return self.process.stdout.readline().strip()

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()


def timed(command: list, home: pathlib.Path, endpoint: str, **more: str) -> tuple[float, float, float]:
    """Seconds by the clock and of the processor, and the largest resident set in MB."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUBTOOL"))}
    env.update(HOME=str(home), HF_HOME=str(home / "hf"), HF_ENDPOINT=endpoint, HF_TOKEN="hf_benchmark", HF_HUB_DISABLE_PROGRESS_BARS="1",
               HF_HUB_DISABLE_UPDATE_CHECK="1", HF_HUB_DISABLE_TELEMETRY="1", **more)  # fmt: skip
    subprocess.run(["sync"], check=True)
    start = time.perf_counter()
    child = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)
    errors = child.stderr.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    taken = time.perf_counter() - start
    if status:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{errors}")
    return taken, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def make(folder: pathlib.Path, count: int, size: int) -> pathlib.Path:
    """count files of random bytes: nothing to compress, and nothing that two of them share."""
    folder.mkdir(parents=True)
    for i in range(count):
        with open(folder / f"{i:04}.bin", "wb") as file:
            for at in range(0, size, 1 << 24):
                file.write(os.urandom(min(1 << 24, size - at)))
    return folder


def measure(root: pathlib.Path, hubtool: str, data: pathlib.Path, runs: int) -> list[dict[str, list]]:
    pulls = {"hubtool pull": [hubtool, "pull", "ada/x", "--quiet"], "hf download": [HF, "download", "ada/x", "--quiet"]}
    pushes = {
        "hubtool push": ([hubtool, "push", data, "ada/x", "--quiet"], {}),
        "hf upload": ([HF, "upload", "ada/x", data, "."], {}),
        "hf upload, HF_HUB_DISABLE_XET=1": ([HF, "upload", "ada/x", data, "."], {"HF_HUB_DISABLE_XET": "1"}),
    }
    pulled: dict[str, list] = {name: [] for name in pulls}
    pushed: dict[str, list] = {name: [] for name in pushes}
    for _ in range(runs):
        for name, (command, more) in pushes.items():
            with Hub(hubtool, root / "hub") as endpoint:
                pushed[name].append(timed(command, root / "home", endpoint, **more))
            shutil.rmtree(root / "home", ignore_errors=True)
            if name != list(pushes)[-1]:
                shutil.rmtree(root / "hub")
        for name, command in pulls.items():
            with Hub(hubtool, root / "hub") as endpoint:
                pulled[name].append(timed(command, root / "home", endpoint))
            shutil.rmtree(root / "home")
        shutil.rmtree(root / "hub")
    return [pulled, pushed]


def table(taken: dict[str, list]) -> None:
    """One row for each way; the first one's are what ratios are to."""
    print("| way | median | range | processor | resident | time / hubtool's | processor / hubtool's |\n|---|---|---|---|---|---|---|")
    own = [statistics.median(run[i] for run in next(iter(taken.values()))) for i in (0, 1)]
    for name, runs in taken.items():
        seconds, processor = (statistics.median(run[i] for run in runs) for i in (0, 1))
        print(f"| {name} | {seconds:.2f} s | {min(r[0] for r in runs):.2f}-{max(r[0] for r in runs):.2f} s | {processor:.2f} s | "
              f"{max(r[2] for r in runs):.0f} MB | {seconds / own[0]:.2f} | {processor / own[1]:.2f} |")  # fmt: skip
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hubtool", default="bin/hubtool")
    parser.add_argument("--megabytes", type=int, default=256, help="size of each of four large files")
    parser.add_argument("--small", type=int, default=500, help="number of files of 20 kB")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    hubtool = os.path.abspath(args.hubtool)
    with tempfile.TemporaryDirectory(prefix="hubtool-bench-") as scratch:
        root = pathlib.Path(scratch)
        for title, count, size in (("large", 4, args.megabytes * 1_000_000), ("small", args.small, 20_000)):
            print(f"{count} files of {size / 1e6:g} MB, {args.runs} runs each\n")
            for taken in measure(root, hubtool, make(root / title, count, size), args.runs):
                table(taken)
            shutil.rmtree(root / title)
        ways = {"hubtool version": [hubtool, "version"], "hf version": [HF, "version"]}
        taken: dict[str, list] = {name: [] for name in ways}
        for _ in range(4 * args.runs):
            for name, command in ways.items():
                taken[name].append(timed(command, root / "home", "http://127.0.0.1:9"))
        print("start-up\n")
        table(taken)


if __name__ == "__main__":
    main()
