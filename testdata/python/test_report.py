"""Reports in a real browser, and their numbers against numpy's."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import DIGITS, GOLDEN, recipe
from PIL import Image

BASE = GOLDEN / "bases" / "vit"
CHROMIUM = next((path for name in ["chromium", "chromium-browser", "google-chrome"] if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def run(tool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    adapter = dict(peft_type="ADALORA", init_r=4, target_r=2, tinit=2, tfinal=2, deltaT=1)
    config = recipe(folder / "config.json", folder / "out", adapter=adapter, own_transforms=False, train_split="train[:96]", eval_split="test[:60]",
                    training=dict(num_train_epochs=3, logging_steps=1))  # fmt: skip
    tool("train", config, "--model", BASE, "--training.ignore-mismatched-sizes")
    return folder / "out"


def test_parts(run, digits):
    page = (run / "report.html").read_text()
    for part in ["Loss", "Accuracy", "Throughput", "Calibration", "Worst mistakes", "Confusion", "Classes", "Ranks that are left", "SHA-256", "memory at most"]:
        assert part in page, part
    assert "learning_rate: 0.005" in page, "the resolved config"
    assert not re.search(r"https?://|<script|src=\"(?!data:)", page)
    assert all(name in page for name in digits.names)


def test_calibration_error(tool, run):
    """The expected calibration error in eval --json is that of predicted probabilities, in 15 bins."""
    got = tool("eval", run, "--dataset", DIGITS, "--split", "test[:60]", "--json").json()
    rows = tool("predict", run, "--dataset", DIGITS, "--split", "test[:60]", "--json").lines()
    confidence = np.array([row["predictions"][0]["score"] for row in rows])
    right = np.array([row["predictions"][0]["label"] == row["truth"] for row in rows])
    bins = (confidence * 15).astype(int)
    want = sum(abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    assert got["expected_calibration_error"] == pytest.approx(want, abs=1e-6)
    assert got["accuracy"] == pytest.approx(right.mean())


def screenshot(page, picture, width, dark):
    subprocess.run(
        [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--blink-settings=preferredColorScheme={0 if dark else 1}",
         f"--window-size={width},3000", f"--screenshot={picture}", page.as_uri()],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return np.asarray(Image.open(picture).convert("RGB")).astype(int)


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 500])
def test_screenshot(run, tmp_path, width, dark):
    """Something is drawn in the colours of the reader's theme, and nothing sticks out of the page."""
    image = screenshot(run / "report.html", tmp_path / "shot.png", width, dark)
    paper = [21, 24, 28] if dark else [255, 255, 255]
    assert (image[5, 5] == paper).all()
    margin = image[:, -12:]
    assert (margin == paper).all(), "something sticks out"
    text = [228, 231, 235] if dark else [29, 33, 38]
    curve = [90, 169, 230] if dark else [27, 108, 168]
    for colour in text, curve:
        assert (abs(image - colour).sum(axis=2) < 30).sum() > 300, colour


def test_comparison(tool, run, tmp_path):
    other = tmp_path / "other"
    tool("train", run / "run.yaml", "--out", other, "--learning-rate", "1e-3")
    result = tool("report", run, other, "-o", tmp_path / "both.html", "--json").json()
    assert result["differing"] == ["training.learning_rate"]
    best = max(result["runs"], key=lambda r: r["results"]["eval_accuracy"])
    for found, folder in zip(result["runs"], [run, other], strict=True):
        assert found["results"] == json.loads((folder / "all_results.json").read_text())
    page = (tmp_path / "both.html").read_text()
    assert "training.learning_rate" in page and best["name"] in page and not re.search(r"https?://|<script", page)
    (tmp_path / "empty").mkdir()
    tool("report", run, tmp_path / "empty", "-o", tmp_path / "none.html", code=3)
    assert not (tmp_path / "none.html").exists()


def test_tensorboard(tool, run, tmp_path):
    """TensorBoard's own reader finds the numbers of trainer_state.json, under the tags of transformers' callback."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tool("train", run / "run.yaml", "--out", tmp_path / "out", "--training.report-to", "tensorboard")
    (folder,) = (tmp_path / "out" / "runs").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    log = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"]
    for tag, key in {"train/loss": "loss", "train/learning_rate": "learning_rate", "eval/accuracy": "eval_accuracy", "train/train_loss": "train_loss"}.items():
        want = [(entry["step"], entry[key]) for entry in log if key in entry]
        got = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in got] == [step for step, _ in want], tag
        np.testing.assert_allclose([v for _, v in got], [v for _, v in want], rtol=1e-6)
