"""Write testdata/golden/ with the real transformers and PEFT, or check that what is committed still agrees with them.

    python make_goldens.py            # rewrites testdata/golden/ (README.md there is kept), and what SCRIPTS make
    python make_goldens.py --check    # regenerates into a temporary folder and compares; exit status 1 on a difference
"""

import os
import sys

# PEFT writes target_modules from a Python set, whose order follows the string hash seed.
if os.environ.get("PYTHONHASHSEED") != "0":
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import argparse  # noqa: E402
import pathlib  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import warnings  # noqa: E402

import torch  # noqa: E402
import transformers  # noqa: E402

from goldens import adapters, bases, compare, configs, text, training  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "testdata" / "golden"
# Packages with golden files of their own, of Pillow, torchvision and datasets, keep the script beside them.
SCRIPTS = [ROOT / "model/vision/testdata/make.py", ROOT / "format/dataset/testdata/make.py"]


def make(root: pathlib.Path) -> None:
    bases.write(root / "bases")
    adapters.write(root)
    training.write(root)
    configs.write(root / "configs")
    text.write(root / "text")


def run(script: pathlib.Path, out: pathlib.Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-W", "ignore", script, "--out", out], check=True, stdout=subprocess.DEVNULL)


def same_files(old: pathlib.Path, new: pathlib.Path) -> list[str]:
    """What differs between two folders of golden files, which must agree to the byte."""
    names = {str(p.relative_to(root)) for root in (old, new) for p in root.rglob("*") if p.is_file()}
    names = {name for name in names if not name.endswith(".py") and not name.startswith("fuzz/")}

    def content(path: pathlib.Path) -> bytes | None:
        return path.read_bytes() if path.exists() else None

    return [f"{old.relative_to(ROOT)}/{name}: differs" for name in sorted(names) if content(old / name) != content(new / name)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing them")
    args = parser.parse_args()

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as scratch:
        fresh = pathlib.Path(scratch) / "golden"
        make(fresh)
        if args.check:
            differences = compare.trees(GOLDEN, fresh)
            for script in SCRIPTS:
                made = pathlib.Path(scratch) / script.relative_to(ROOT).parent
                run(script, made)
                differences += same_files(script.parent, made)
            print(*differences, sep="\n")
            print(f"goldens: {len(differences)} differences in {sum(1 for _ in pathlib.Path(scratch).rglob('*.*'))} files")
            return 1 if differences else 0
        for made in fresh.rglob("*.safetensors"):
            made.chmod(0o644)  # safetensors creates its files for the owner alone
        for old in GOLDEN.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
        shutil.copytree(fresh, GOLDEN, dirs_exist_ok=True)
        for script in SCRIPTS:
            run(script, script.parent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
