"""`hubtool dataset` beside what Pillow and numpy say of the same files, and training on data sets with damaged images."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from conftest import TINY
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image, ImageOps


@pytest.fixture(scope="module")
def rows() -> list:
    """(encoded file, label): JPEG, PNG and WebP of several sizes, one turned by EXIF, and two that are damaged."""
    rng, made = np.random.default_rng(5), []
    for i in range(24):
        width, height = rng.integers(20, 90, 2)
        picture = Image.fromarray(rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)).resize((width, height))
        kind, extra, out = ["JPEG", "PNG", "WEBP"][i % 3], {}, io.BytesIO()
        if i == 3:
            extra["exif"] = Image.Exif()
            extra["exif"][0x0112] = 6
        picture.save(out, kind, **extra)
        made.append((out.getvalue(), i % 2))
    made[6] = (made[6][0][: len(made[6][0]) // 2], 0)
    made[13] = (b"no image", 1)
    return made


@pytest.fixture(scope="module")
def parquet(rows, tmp_path_factory):
    """The rows in two files, as `datasets` writes them."""
    folder = tmp_path_factory.mktemp("parquet")
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["left", "right"])})
    for k, part in enumerate((rows[:10], rows[10:])):
        data = [{"image": {"bytes": data, "path": f"{k}-{i}.img"}, "label": label} for i, (data, label) in enumerate(part)]
        Dataset.from_list(data, features=features).to_parquet(folder / f"train-{k:05}-of-00002.parquet")
    return folder


def sound(rows) -> list:
    return [np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
            for i, (data, _) in enumerate(rows) if i not in (6, 13)]  # fmt: skip


def test_stats(tool, rows, parquet):
    result = tool("dataset", "stats", parquet, "--json", code=6)
    stats, images = result.json(), sound(rows)
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    np.testing.assert_allclose(stats["mean"], pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats["std"], pixels.std(0), rtol=1e-9)
    assert {f["format"]: f["images"] for f in stats["formats"]} == {"JPEG": 7, "PNG": 7, "WebP": 8}
    assert [c["rows"] for c in stats["classes"]] == [12, 12]
    for axis, name in ((1, "width"), (0, "height")):
        sizes = sorted(image.shape[axis] for image in images)
        assert [stats[name]["min"], stats[name]["max"], stats[name]["mean"]] == [sizes[0], sizes[-1], np.mean(sizes)]
    found = [(b["file"].rsplit("/", 1)[1], b["row"], b["image"]) for b in stats["broken"]]
    assert found == [("train-00000-of-00002.parquet", 6, "0-6.img"), ("train-00001-of-00002.parquet", 3, "1-3.img")]
    assert len(result.error()["details"]) == 2


def test_contact_sheet_has_pillows_pixels(tool, rows, parquet, tmp_path):
    page = tmp_path / "sheet.html"
    tool("dataset", "show", parquet, "--split", "train", "-o", page, "--transforms", "[{Resize: [32, 24]}, ToTensor, Normalize]", code=6)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in re.findall(r"base64,([^\"]+)", html.unescape(page.read_text()))]
    want = [np.asarray(Image.fromarray(image).resize((24, 32), Image.BILINEAR)) for image in sound(rows)]
    assert len(shown) == len(want) == 22
    for one, other in zip(shown, want):
        np.testing.assert_array_equal(one[..., :3], other)
    assert page.read_text().count("damaged: ") == 2


def test_training_with_damaged_images(tool, parquet, tmp_path):
    config = {
        "model": str(TINY),
        "dataset": {"path": str(parquet), "test_size": 0},
        "adapter": {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]},
        "training": {"num_train_epochs": 1, "per_device_train_batch_size": 8, "eval_strategy": "no", "save_strategy": "no", "output_dir": str(tmp_path / "out")},
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    error = tool("train", path, "--json", code=6).error()
    assert re.search(r"reading row (6|3) of .*train-0000[01]-of-00002.parquet", error["message"]) and ".img" in error["message"]
    result = tool("train", path, "--skip-broken", "--json")
    assert result.json()["broken_images"] == 2
    assert result.err.count("left out: ") == 2
    assert json.loads((tmp_path / "out" / "all_results.json").read_text())["broken_images"] == 2
    assert "0-6.img" in (tmp_path / "out" / "report.html").read_text()
