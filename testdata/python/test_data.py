"""Data sets as `datasets` reads them: rows, their order, labels, class names and the bytes of images. The script that makes the
fixtures of package dataset notes what load_dataset reads; the package's own tests, pointed at the folder, read the same.
"""

import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile

import datasets
import numpy as np
import pytest
from conftest import ROOT, TINY, classifier, logits
from PIL import Image
from test_hub import Hub
from transformers import BitImageProcessorPil, ViTForImageClassification, ViTImageProcessorPil


@pytest.fixture
def make(tmp_path, monkeypatch):
    """The script as a module whose fixtures go to a folder of their own."""
    script = ROOT / "format/dataset/testdata/make.py"
    monkeypatch.setattr(sys, "argv", [str(script), "--out", str(tmp_path / "sets")])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name in ("HF_DATASETS_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # the script sets them; this restores them
    spec = importlib.util.spec_from_file_location("make_datasets", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "sets").mkdir()
    yield module
    os.chdir(ROOT)


def agree(make, cases: int) -> None:
    """Let Go read what CASES lists; they are as many as that."""
    assert len(make.CASES) == cases
    make.write_cases()
    env = {**os.environ, "HUBTOOL_TEST_DATASETS": make.HERE}
    done = subprocess.run(["go", "test", "-count=1", "-run", "^TestRows$", "-v", "./format/dataset"], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert done.stdout.count("--- PASS: TestRows/") == 3 * cases  # by row groups, with a fresh cache, with a filled one


def test_fixtures(make):
    make.parquet_fixtures()
    make.folder_fixtures()
    make.table_fixtures()
    make.webdataset_fixtures()
    agree(make, 40)


@pytest.mark.parametrize("generation", ["old", "current"])
def test_food101_layout(make, generation):
    """Row groups as large as Food-101's: 100 images of 50 kB each in one dictionary page, and 100 MB of plain pages."""
    rng, names = np.random.default_rng(0), [f"dish_{i}" for i in range(101)]
    count = {"old": 230, "current": 2200}[generation]
    rows = [
        {"image": {"bytes": b"\xff\xd8" + rng.bytes(int(rng.integers(45_000, 55_000))), "path": f"{i}.jpg"}, "label": int(rng.integers(101))}
        for i in range(count)
    ]
    make.repo.write(os.path.join(make.HERE, "food"), {"train": rows, "validation": rows[:40]}, names, generation, "")
    file = make.pq.ParquetFile(os.path.join(make.HERE, "food/data/train-00000-of-00001.parquet")).metadata
    column = file.row_group(0).column(0)
    if generation == "old":
        assert file.row_group(0).num_rows == 100 and column.has_dictionary_page and column.total_uncompressed_size > 4_500_000
    else:
        assert file.num_row_groups > 1 and column.compression == "UNCOMPRESSED" and column.total_uncompressed_size > 80_000_000
    make.case("food")
    agree(make, 1)


def jpeg(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)).save(out, "JPEG")
    return out.getvalue()


# Each makes data sets in a script with the Hub as its endpoint; FOLDER has images in train/ and test/, in a folder a class.
PUSHED = {
    "folder": "load_dataset(FOLDER).push_to_hub('ada/folder')",
    "shards": "load_dataset(FOLDER, split='train').push_to_hub('ada/shards', num_shards=3, split='every.one')",
    "configs": (
        "d = load_dataset(FOLDER); d.push_to_hub('ada/configs', 'one'); "
        "d['train'].rename_columns({'image': 'img', 'label': 'fine'}).push_to_hub('ada/configs', 'two', split='extra')"
    ),
    "nulls": (
        "f = Features({'image': Image(), 'labels': ClassLabel(names=['a', 'b'])}); "
        "b = open(FOLDER + '/train/cat/0.jpg', 'rb').read(); "
        "Dataset.from_list([{'image': b, 'labels': 1}, {'image': None, 'labels': 0}, {'image': b, 'labels': None}], features=f).push_to_hub('ada/nulls')"
    ),
    "text": (
        "d = load_dataset(FOLDER, split='train'); names = d.features['label'].names; "
        "d.cast_column('label', Value('string')).map(lambda r: {'label': names[int(r['label'])]}).push_to_hub('ada/text')"
    ),
    "metadata": (
        "import shutil, json; shutil.copytree(FOLDER + '/train', 'meta'); "
        "open('meta/metadata.jsonl', 'w').write(chr(10).join(json.dumps({'file_name': f'{c}/{i}.jpg', 'label': i}) for c in ['dog', 'cat'] for i in (1, 0))); "
        "load_dataset('meta').push_to_hub('ada/metadata')"
    ),
    "encoded": (
        "import numpy; Dataset.from_dict({'image': [numpy.full((4, 5, 3), i, 'uint8') for i in range(6)], 'label': [0, 1] * 3}, "
        "features=Features({'image': Image(), 'label': ClassLabel(num_classes=2)})).push_to_hub('ada/encoded')"
    ),
}


def test_pushed_by_datasets(make, program, tmp_path):
    """What push_to_hub writes to `hubtool serve`, and `hubtool pull` brings."""
    folder = tmp_path / "images"
    for i, path in enumerate(f"{s}/{c}/{n}.jpg" for s in ("train", "test") for c in ("cat", "dog", "élan") for n in range(4)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(jpeg(i))
    (tmp_path / "hub").mkdir()
    hub = Hub(program, tmp_path / "hub")
    try:
        code = "import os; from datasets import *; " f"FOLDER = {str(folder)!r}; os.chdir({str(tmp_path)!r})\n" + "\n".join(PUSHED.values())
        hub.run(sys.executable, "-c", code)
        for name in PUSHED:
            hub.hubtool("pull", f"hf://datasets/ada/{name}", "--local-dir", pathlib.Path(make.HERE) / name)
    finally:
        hub.server.terminate()
        hub.server.wait(10)
        hub.log.close()
    make.case("folder")
    make.case("shards")
    make.case("configs", config="one")
    make.case("configs", config="two", image="img", label="fine")
    make.case("nulls", label="labels")
    make.case("text", encode=True)
    make.case("metadata", encode=True)
    make.case("encoded")
    agree(make, 8)


PROCESSORS = {
    "bit": (BitImageProcessorPil, dict(image_processor_type="BitImageProcessor", size=dict(shortest_edge=36), crop_size=dict(height=32, width=32))),
    "bit-numbers": (BitImageProcessorPil, dict(image_processor_type="BitImageProcessorFast", size=33, crop_size=32, resample=2, image_mean=[0.1, 0.5, 0.9])),
    "vit-crop": (ViTImageProcessorPil, dict(image_processor_type="ViTImageProcessor", size=dict(height=37, width=40), do_center_crop=True,
                                            crop_size=dict(height=32, width=32), resample=1)),
    "vit-pads": (ViTImageProcessorPil, dict(image_processor_type="ViTImageProcessor", size=dict(height=27, width=20), do_center_crop=True,
                                            crop_size=32, do_normalize=False)),
    "no-rescale": (ViTImageProcessorPil, dict(feature_extractor_type="ViTFeatureExtractor", size=32, do_rescale=False, image_mean=[120.0, 100.0, 90.0],
                                              image_std=[60.0, 50.0, 70.0])),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSORS)
def test_processors(tool, digits, pictures, tmp_path, name):
    """Logits of images prepared as preprocessor_config.json says, by the class that it names with the PIL backend."""
    processor, settings = PROCESSORS[name]
    classifier(TINY, digits.names).save_pretrained(tmp_path / "model")
    (tmp_path / "model/preprocessor_config.json").write_text(json.dumps(settings))
    files = [*pictures(32, 32), *pictures(61, 40), *digits.image_files[:2]]
    images = [Image.open(path).convert("RGB") for path in files]
    values = processor.from_pretrained(tmp_path / "model")(images, return_tensors="pt")["pixel_values"]
    model = ViTForImageClassification.from_pretrained(tmp_path / "model").eval()
    np.testing.assert_allclose(tool.logits(tmp_path / "model", files), logits(model, values), atol=1e-4)


def test_tar_as_others_pack_them(make):
    """WebDatasets by the tar program's own formats, and members that are no part of a sample."""
    base = pathlib.Path(make.HERE) / "files"
    base.mkdir()
    for i in range(7):
        (base / f"{i}.jpg").write_bytes(jpeg(i))
        (base / f"{i}.cls").write_text(str(i % 2))
    for form, options in {"gnu": ["--format=gnu"], "pax": ["--format=pax"], "gz": ["-z", "--format=ustar"], "dot": []}.items():
        out = pathlib.Path(make.HERE) / f"tar-{form}"
        out.mkdir()
        what = ["."] if form == "dot" else [f"{i}.{ext}" for i in range(7) for ext in ("cls", "jpg")]
        name = "train.tar.gz" if form == "gz" else "train.tar"
        subprocess.run(["tar", "-cf", out / name, "--sort=name", *options, "-C", base, *what], check=True)
        with tarfile.open(out / name) as archive:
            assert sum(m.isreg() for m in archive) == 14
        make.case(f"tar-{form}", label="cls", image="jpg", encode=True)
    agree(make, 4)
