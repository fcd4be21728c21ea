"""Bad input: the exit code, one line that says why, and no output left behind."""

import json
import shutil
import struct

import pytest
import torch
from conftest import DIGITS, GOLDEN, TINY, recipe
from goldens import common
from goldens.bases import LABELS

BASE = GOLDEN / "bases/vit"
ADAPTER = GOLDEN / "lora/classifier"


@pytest.fixture
def adapter(tmp_path):
    """A copy of an adapter, to be damaged."""
    return shutil.copytree(ADAPTER, tmp_path / "adapter")


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(folder, change):
    tensors = common.load(folder / "adapter_model.safetensors")
    change(tensors)
    common.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def truncate(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def huge_header(folder):
    path = folder / "adapter_model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])


def not_finite(tensors):
    next(t for name, t in tensors.items() if "lora_B" in name)[0, 0] = torch.nan


def drop(part):
    def change(tensors):
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return lambda folder: edit_tensors(folder, change)


DAMAGES = {
    # what happens to the adapter folder, and the exit code of merge
    "config is not JSON": (lambda d: (d / "adapter_config.json").write_text("{"), 6),
    "config is a list": (lambda d: (d / "adapter_config.json").write_text("[]"), 6),
    "rank is a string": (lambda d: edit_config(d, r="4"), 6),
    "rank is a fraction": (lambda d: edit_config(d, r=4.5), 6),
    "rank is zero": (lambda d: edit_config(d, r=0), 6),
    "alpha is a string": (lambda d: edit_config(d, lora_alpha="8"), 6),
    "bias is unknown": (lambda d: edit_config(d, bias="some"), 6),
    "targets are a number": (lambda d: edit_config(d, target_modules=5), 6),
    "file cut short": (truncate, 6),
    "header longer than any file": (huge_header, 6),
    "not a number in lora_B": (lambda d: edit_tensors(d, not_finite), 6),
    "no weights": (lambda d: (d / "adapter_model.safetensors").unlink(), 3),
    "no config": (lambda d: (d / "adapter_config.json").unlink(), 3),
    "unknown method": (lambda d: edit_config(d, peft_type="NEW_METHOD"), 7),
    "rank does not fit the tensors": (lambda d: edit_config(d, r=7), 7),
    "no such target": (lambda d: edit_config(d, target_modules=["qproj"]), 7),
    "lora_B missing": (drop("layers.1.attention.q_proj.lora_B"), 7),
    "bias of the head missing": (drop("classifier.bias"), 7),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_merge_of_a_damaged_adapter(tool, adapter, tmp_path, what):
    damage, code = DAMAGES[what]
    damage(adapter)
    result = tool("merge", adapter, "--base", BASE, "--out", tmp_path / "out", code=code)
    assert result.out == ""
    assert result.err.startswith("hubtool: ") and "panic" not in result.err and "goroutine" not in result.err
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("**/*.partial"))


@pytest.mark.parametrize("what", ["file cut short", "not a number in lora_B", "no such target", "rank is a string"])
def test_predict_with_a_damaged_adapter(tool, adapter, pictures, what):
    damage, code = DAMAGES[what]
    damage(adapter)
    tool("predict", adapter, *pictures(16, 16), "--base", BASE, code=code)


def test_wrong_base(tool, tmp_path):
    for base in ("nobias", "oblong"):
        error = tool("merge", ADAPTER, "--base", GOLDEN / "bases" / base, "--out", tmp_path / "out", "--json", code=7).error()
        assert error["code"] == 7 and error["kind"] and error["message"]
        assert not (tmp_path / "out").exists()


def test_output_that_exists(tool, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    args = ["merge", ADAPTER, "--base", BASE, "--out", tmp_path / "out"]
    tool(*args, code=2)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    tool(*args, "--force")
    assert (tmp_path / "out/model.safetensors").exists()


@pytest.mark.parametrize(
    "args, code, names",
    [
        (["merje"], 2, "merge"),
        (["merge", ADAPTER, "--bass", BASE, "--out", "x"], 2, "--base"),
        (["merge", ADAPTER, "--base", BASE, "--out", "x", "--rounding", "pefft"], 2, "peft"),
        (["merge", "--base", BASE, "--out", "x"], 2, ""),
        (["merge", "./nowhere", "--base", BASE, "--out", "x"], 3, "nowhere"),
        (["predict", BASE, "./no-image.png"], 3, "no-image.png"),
        (["eval", BASE, "--dataset", DIGITS, "--split", "tset"], 3, "test"),
        (["inspect", "./nowhere"], 3, "nowhere"),
        (["merge", "someone/adapter", "--base", BASE, "--out", "x", "--offline"], 5, "someone/adapter"),
    ],
    ids=lambda value: " ".join(str(v).split("/")[-1] for v in value) if isinstance(value, list) else "",
)
def test_command_line(tool, args, code, names):
    assert names in tool(*args, code=code).err


def test_config_names_every_problem(tool, tmp_path):
    config = recipe(tmp_path / "config.json", tmp_path / "out")
    content = json.loads(config.read_text())
    content["training"]["learning_rat"] = content["training"].pop("learning_rate")
    content["adapter"]["lora_alfa"] = 3
    content["transforms"]["train"][1] = "ToTensr"
    config.write_text(json.dumps(content))
    err = tool("train", config, code=2).err
    for name in ("learning_rate", "lora_alpha", "ToTensor"):
        assert name in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("changes", [dict(train_split="tren"), dict(label_column="klass"), dict(path="./nowhere")])
def test_missing_in_data_set(tool, tmp_path, changes):
    tool("train", recipe(tmp_path / "config.json", tmp_path / "out", **changes), "--dry-run", code=3)


def test_head_of_another_size(tool, tmp_path):
    """A base that already has a head of five classes, and ten digits: refused unless asked for."""
    config = recipe(tmp_path / "config.json", tmp_path / "out", own_transforms=False)
    tool("train", config, "--model", BASE, "--dry-run", code=7)
    tool("train", config, "--model", BASE, "--dry-run", "--training.ignore-mismatched-sizes")


def test_unreadable_image_does_not_stop_the_rest(tool, pictures, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\nnot an image")
    first, second, _ = pictures(16, 16)
    result = tool("predict", BASE, first, bad, second, "--json", code=6)
    assert [row["image"] for row in result.lines()] == [str(first), str(second)]
    assert "bad.png" in result.err


def test_requirement_not_met(tool, pictures, tmp_path):
    for label in LABELS:
        (tmp_path / "data" / label).mkdir(parents=True)
        for picture in pictures(16, 16):
            shutil.copy(picture, tmp_path / "data" / label)
    args = ["eval", BASE, "--dataset", tmp_path / "data", "--split", "train", "--json"]
    measured = tool(*args).json()
    assert measured["n"] == 15 and [row["label"] for row in measured["per_class"]] == LABELS
    # Three images five times over, under every label once: the best that is possible.
    assert measured["accuracy"] == pytest.approx(0.2)
    tool(*args, "--require", "accuracy>=0.2")
    tool(*args, "--require", "accuracy>=0.21", code=8)


def test_error_as_json(tool, tmp_path):
    error = tool("--json", "inspect", tmp_path / "nowhere", code=3).error()
    assert error["code"] == 3 and {"code", "kind", "message"} <= error.keys()


def test_tiny_vit_is_readable(tool):
    """The fixture of all of this: a model that inspect describes."""
    summary = tool("inspect", TINY, "--json").json()
    assert (summary["kind"], summary["parameters"], len(summary["tensors"])) == ("model", 467_904, 72)
