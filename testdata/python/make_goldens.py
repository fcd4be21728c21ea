"""Write testdata/golden/ with the real transformers and PEFT, or check that what is committed still agrees with them.

    python make_goldens.py            # rewrites testdata/golden/ (README.md there is kept)
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
import tempfile  # noqa: E402
import warnings  # noqa: E402

import torch  # noqa: E402
import transformers  # noqa: E402

from goldens import adapters, bases, compare, configs, text, training  # noqa: E402

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "golden"


def make(root: pathlib.Path) -> None:
    bases.write(root / "bases")
    adapters.write(root)
    training.write(root)
    configs.write(root / "configs")
    text.write(root / "text")


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
            print(*differences, sep="\n")
            print(f"goldens: {len(differences)} differences in {sum(1 for _ in fresh.rglob('*.*'))} files")
            return 1 if differences else 0
        for made in fresh.rglob("*.safetensors"):
            made.chmod(0o644)  # safetensors creates its files for the owner alone
        for old in GOLDEN.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
        shutil.copytree(fresh, GOLDEN, dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
