"""The guide's job at its full size, from pull to push, with everything but the real numbers: ViT-base of random weights in the layout
of google/vit-base-patch16-224-in21k and photographs of 512 pixels in the layout of ethz/food101, on a Hub of our own.

    pytest test_rehearsal.py -m slow -s        # prints how long each part takes: two and a half minutes on two busy cores
"""

import io
import json
import subprocess
import time

import numpy as np
import pytest
import torch
from conftest import logits, pixels, xla_plugin
from datasets import ClassLabel, Dataset, Features, Image
from peft import PeftModel
from PIL import Image as Pillow
from PIL import ImageFilter
from test_hub import Hub
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

BASE, DATA, OUT = "google/vit-base-patch16-224-in21k", "ethz/food101", "ada/vit-base-food101-lora"
LINE = "trainable params: 667,493 || all params: 86,543,818 || trainable%: 0.7713"
CLASSES, ROWS = 101, 120


@pytest.fixture(scope="module")
def hub(program, tmp_path_factory):
    """A Hub with the base and the data set."""
    folder = tmp_path_factory.mktemp("rehearsal")
    hub = Hub(program, folder)
    torch.manual_seed(0)
    ViTModel(ViTConfig()).save_pretrained(folder / "base")
    ViTImageProcessor().save_pretrained(folder / "base")
    (folder / "food" / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = {"image": [{"path": f"{i}.jpg", "bytes": photograph(rng)} for i in range(ROWS)], "label": [i % CLASSES for i in range(ROWS)]}
    features = Features({"image": Image(), "label": ClassLabel(names=[f"dish_{i:03d}" for i in range(CLASSES)])})
    data = Dataset.from_dict(rows, features=features)
    data.to_parquet(folder / "food" / "data" / "train-00000-of-00001.parquet")
    data.select(range(8)).to_parquet(folder / "food" / "data" / "validation-00000-of-00001.parquet")
    hub.hubtool("push", folder / "base", BASE, "--message", "Random weights")
    hub.hubtool("push", folder / "food", DATA, "--repo-type", "dataset", "--message", "Random photographs")
    yield hub
    hub.server.terminate()
    hub.server.wait(10)
    hub.log.close()


def photograph(rng) -> bytes:
    """A JPEG whose longer side is 512, as Food-101's are, with structure at all scales."""
    width, height = (512, int(rng.integers(341, 513)))[:: rng.choice([-1, 1])]
    noise = Pillow.fromarray(rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
    image = noise.resize((width, height), Pillow.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(2))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.mark.slow
def test_whole_recipe(hub, tmp_path):
    parts = []

    def hubtool(*args):
        """Run the program as a user with XLA does, and note how long it takes."""
        env = {**hub.env("user"), "HUBTOOL_ENGINE": f"xla:{xla_plugin()}"}
        began = time.monotonic()
        done = subprocess.run([hub.program, *map(str, args)], env=env, cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        parts.append((args[0], time.monotonic() - began))
        assert done.returncode == 0, f"{args}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
        return done

    hubtool("init", "food101", "-o", "food101.yaml")
    snapshot = hubtool("pull", BASE).stdout.strip()
    hubtool("pull", DATA, "--repo-type", "dataset")
    small = ["--batch-size", 4, "--training.gradient-accumulation-steps", 2, "--training.max-steps", 3, "--dataset.test-size", 8]
    trained = hubtool("train", "food101.yaml", *small, "--dataset.train-split", "train[:32]", "--training.logging-steps", 1,
                      "--training.hub-model-id", OUT, "--json")  # fmt: skip
    assert LINE in trained.stdout + trained.stderr
    summary = json.loads(trained.stdout.strip().splitlines()[-1])
    assert (summary["trainable_parameters"], summary["all_parameters"]) == (667_493, 86_543_818)
    folder = tmp_path / summary["output_dir"]
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in log if "loss" in entry]
    assert len(losses) == 3 and abs(losses[0] - np.log(CLASSES)) < 1, losses

    # What was pushed is what a stranger evaluates, merges and uses.
    images = [tmp_path / f"{i}.jpg" for i in range(2)]
    for i, path in enumerate(images):
        path.write_bytes(photograph(np.random.default_rng(100 + i)))
    evaluated = json.loads(hubtool("eval", OUT, "--dataset", DATA, "--split", "validation", "--batch-size", 4, "--json").stdout)
    assert evaluated["n"] == 8 and np.isfinite(evaluated["loss"])
    hubtool("merge", OUT, "--base", BASE, "--out", "merged")
    predict = ["predict", "merged", *images, "--logits", "--json", "--batch-size", 2]
    rows = [json.loads(line) for line in hubtool(*predict).stdout.splitlines()]
    assert rows[0]["predictions"][0]["label"].startswith("dish_")
    hubtool("push", "merged", OUT + "-merged")

    # transformers and PEFT see the same.
    got = np.array([row["logits"] for row in rows])
    merged = ViTForImageClassification.from_pretrained(tmp_path / "merged").eval()
    adapted = PeftModel.from_pretrained(ViTForImageClassification.from_pretrained(snapshot, num_labels=CLASSES), folder).eval()
    for model in (merged, adapted):
        np.testing.assert_allclose(got, logits(model, pixels(tmp_path / "merged", images)), rtol=1e-3, atol=1e-3)
    print("\n" + "\n".join(f"{name:8} {seconds:7.1f} s" for name, seconds in parts))
    print(f"peak memory of train: {summary['peak_rss'] / 2**20:.0f} MiB, {summary['images_per_second']:.2f} images/s")
