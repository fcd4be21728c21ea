"""Fixtures of the interop suite: the hubtool program, its engines, and the real libraries' view of its files.

HUBTOOL names a program to test; without it the suite builds ./cmd/hubtool. The suite needs no network.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from datasets import load_dataset  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "testdata" / "golden"
TINY = ROOT / "testdata" / "tiny-vit"
DIGITS = ROOT / "testdata" / "digits"

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(2)


@dataclasses.dataclass
class Result:
    code: int
    out: str
    err: str

    def json(self):
        """The one JSON value on stdout; of several lines the last."""
        return json.loads(self.out.strip().splitlines()[-1])

    def lines(self) -> list:
        return [json.loads(line) for line in self.out.splitlines()]

    def error(self) -> dict:
        """What --json prints on stderr when a command fails."""
        return json.loads(self.err.strip().splitlines()[-1])["error"]


class Hubtool:
    """One build of the program with one engine, in an environment without the user's cache and token."""

    def __init__(self, program: str, engine: str, home: pathlib.Path):
        self.program, self.engine, self.home = program, engine, home

    def __call__(self, *args, code: int = 0, timeout: float = 900) -> Result:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUBTOOL"))}
        # Nothing here may reach a Hub: a request would fail at once and be seen.
        env.update(HOME=str(self.home), HF_HOME=str(self.home / "hf"), HF_ENDPOINT="http://127.0.0.1:9")
        if self.engine:
            env["HUBTOOL_ENGINE"] = self.engine
        command = [self.program, *map(str, args)]
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        result = Result(done.returncode, done.stdout, done.stderr)
        if result.code != code:
            tail = f"{result.out[-2000:]}\n{result.err[-3000:]}"
            pytest.fail(f"exit code {result.code}, want {code}: {' '.join(command)}\n{tail}", pytrace=False)
        return result

    def logits(self, model, images, *args) -> np.ndarray:
        """Logits [N, labels] that `predict` prints for image files, in the order of the files."""
        rows = self("predict", model, *images, "--logits", "--json", *args).lines()
        assert [row["image"] for row in rows] == [str(image) for image in images]
        return np.array([row["logits"] for row in rows], dtype=np.float32)


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> str:
    if given := os.environ.get("HUBTOOL"):
        return os.path.abspath(given)
    built = tmp_path_factory.mktemp("bin") / "hubtool"
    subprocess.run(
        ["go", "build", "-o", built, "./cmd/hubtool"], cwd=ROOT, check=True
    )
    return str(built)


def xla_plugin() -> str:
    """XLA's processor plugin out of the wheel that requirements.txt names."""
    spec = importlib.util.find_spec("lammps_jax_pjrt_cpu")
    return str(pathlib.Path(spec.origin).parent / "pjrt_c_api_cpu_plugin.so")


@pytest.fixture(scope="session", params=["go", "xla"])
def hubtool(request, program, tmp_path_factory) -> Hubtool:
    """The program with either engine; tests that compute use it."""
    engine = "go" if request.param == "go" else f"xla:{xla_plugin()}"
    return Hubtool(program, engine, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def xla(program, tmp_path_factory) -> Hubtool:
    """The program with XLA; tests of what only XLA can do use it."""
    return Hubtool(program, f"xla:{xla_plugin()}", tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def quick(program, tmp_path_factory) -> Hubtool:
    """The program with the quicker engine; long tests use it."""
    return Hubtool(program, f"xla:{xla_plugin()}", tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def tool(program, tmp_path_factory) -> Hubtool:
    """The program with the engine that needs nothing installed; tests about files use it."""
    return Hubtool(program, "go", tmp_path_factory.mktemp("home"))


def classifier(base, names: list[str] | None = None, seed: int = 0, **kwargs):
    """ViTForImageClassification on a base; names are the classes of a head that the base does not have, drawn from seed."""
    if names:
        kwargs.update(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})
    torch.manual_seed(seed)
    return transformers.ViTForImageClassification.from_pretrained(base, **kwargs).eval()


@pytest.fixture
def no_warnings():
    """Warnings become errors: PEFT and transformers report keys they miss or cannot use that way only."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def pixels(folder, images) -> torch.Tensor:
    """[N, 3, H, W] as the processor of a model folder prepares image files with Pillow."""
    processor = transformers.ViTImageProcessorPil.from_pretrained(folder)
    return processor([Image.open(path).convert("RGB") for path in images], return_tensors="pt")["pixel_values"]


def logits(model, values: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(pixel_values=values).logits.float().numpy()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """(width, height) -> three image files: two of that size, one that has to be resized."""
    folder, made = tmp_path_factory.mktemp("pictures"), {}

    def make(width: int, height: int) -> list[pathlib.Path]:
        if (width, height) not in made:
            rng = np.random.default_rng(width * 1000 + height)
            files = []
            for i, (w, h) in enumerate([(width, height), (width, height), (3 * width + 5, 2 * height + 1)]):
                path = folder / f"{width}x{height}-{i}.png"
                Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(path)
                files.append(path)
            made[width, height] = files
        return made[width, height]

    return make


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """The digits data set, and ten of its test images as files."""
    data = load_dataset(str(DIGITS))
    folder = tmp_path_factory.mktemp("digits")
    files = []
    for i, image in enumerate(data["test"][:10]["image"]):
        files.append(folder / f"{i}.png")
        image.save(files[-1])
    data.image_files = files
    data.names = data["train"].features["label"].names
    return data


# The recipe of PEFT's image-classification guide, scaled down: see reference.py.
RECIPE = {
    "model": str(TINY),
    "dataset": {"path": str(DIGITS), "train_split": "train", "eval_split": "test"},
    "transforms": {
        "train": [{"RandomResizedCrop": {"size": 32, "scale": [0.6, 1.0]}}, "ToTensor", "Normalize"],
        "eval": [{"Resize": 32}, {"CenterCrop": 32}, "ToTensor", "Normalize"],
    },
    "adapter": {
        "peft_type": "LORA",
        "r": 16,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "target_modules": ["query", "value"],
        "modules_to_save": ["classifier"],
    },
    "training": {
        "num_train_epochs": 5,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 120,
        "gradient_accumulation_steps": 1,
        "learning_rate": 5e-3,
        "fp16": False,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "seed": 0,
    },
}


def recipe(file: pathlib.Path, out: pathlib.Path, adapter=None, training=None, own_transforms=True, **dataset) -> pathlib.Path:
    """Write RECIPE with changes as a config file (JSON is a config as well): adapter replaces, training and the data set's keys
    update, and own_transforms=False leaves the transforms, which are for 32x32 images, at hubtool's default.
    """
    config = json.loads(json.dumps(RECIPE))
    if not own_transforms:
        del config["transforms"]
    if adapter is not None:
        config["adapter"] = {"modules_to_save": ["classifier"], "target_modules": ["query", "value"], **adapter}
    config["training"].update(training or {}, output_dir=str(out))
    config["dataset"].update(dataset)
    file.write_text(json.dumps(config))
    return file
