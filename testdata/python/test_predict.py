"""Models and adapters that transformers and PEFT write, in `hubtool predict`: same logits."""

import json
import os
import subprocess
import time

import numpy as np
import pytest
import torch
from conftest import DIGITS, GOLDEN, TINY, classifier, logits, pixels
from datasets import load_dataset
from goldens import adapters, bases
from goldens.common import fill
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model

BASES = sorted(path.name for path in (GOLDEN / "bases").iterdir() if not path.name.startswith("bare"))
GOLDENS = sorted(str(path.parent.relative_to(GOLDEN)) for path in GOLDEN.glob("*/*/logits.safetensors"))
FOREIGN = {"lora/classic-names", "lora/old-config"}  # real, but this PEFT cannot load them: see the goldens' logits
MUTATING = {"lora/pissa", "lora/olora"}  # PEFT changes the base when it loads them


def size_of(base: str) -> tuple[int, int]:
    """(width, height) of a base's images."""
    size = json.loads((GOLDEN / "bases" / base / "config.json").read_text())["image_size"]
    return (size, size) if isinstance(size, int) else (size[1], size[0])


@pytest.mark.parametrize("base", BASES)
def test_model(hubtool, pictures, base):
    folder, files = GOLDEN / "bases" / base, pictures(*size_of(base))
    want = logits(classifier(folder, dtype=torch.float32), pixels(folder, files))
    np.testing.assert_allclose(hubtool.logits(folder, files), want, atol=1e-4)
    label = hubtool("predict", folder, files[0], "--json").lines()[0]["predictions"][0]["label"]
    assert label == bases.LABELS[want[0].argmax()]


@pytest.mark.parametrize("name", sorted(set(GOLDENS) - MUTATING))
def test_adapter(hubtool, pictures, name):
    base = json.loads((GOLDEN / name / "case.json").read_text())["base"]
    folder, files = GOLDEN / "bases" / base, pictures(*size_of(base))
    model = adapters.open_base(GOLDEN, base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, GOLDEN / ("lora/classifier" if name in FOREIGN else name)).eval()
    want = logits(model, pixels(folder, files))
    np.testing.assert_allclose(hubtool.logits(GOLDEN / name, files, "--base", folder), want, atol=1e-4)


@pytest.mark.parametrize("name", sorted(MUTATING))
def test_adapter_is_refused(tool, pictures, name):
    base = json.loads((GOLDEN / name / "case.json").read_text())["base"]
    tool("predict", GOLDEN / name, *pictures(16, 16), "--base", GOLDEN / "bases" / base, code=7)


CLASSIFIER = dict(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])


FRESH = {
    "lora": LoraConfig(r=16, lora_alpha=16, **CLASSIFIER),
    "loha": LoHaConfig(r=16, alpha=16, **CLASSIFIER),
    "lokr": LoKrConfig(r=16, alpha=16, **CLASSIFIER),
}


@pytest.mark.parametrize("method", FRESH)
def test_fresh_adapter(hubtool, digits, tmp_path, method):
    """The guide's adapters on tiny-vit, base found from the path that PEFT wrote into the config."""
    model = get_peft_model(classifier(TINY, digits.names), FRESH[method])
    fill("fresh", [(n.replace(".default", ""), p) for n, p in model.named_parameters() if p.requires_grad])
    model.save_pretrained(tmp_path)
    want = logits(model.eval(), pixels(TINY, digits.image_files))
    np.testing.assert_allclose(hubtool.logits(tmp_path, digits.image_files), want, atol=2e-4 * np.abs(want).max())


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_prediction_files(tool, digits, tmp_path, kind):
    """A data set's predictions in two shards, as `datasets` reads them, are those that predict prints."""
    model = GOLDEN / "bases" / "vit"
    for shard in range(2):
        tool("predict", model, "--dataset", DIGITS, "--split", "test[:21]", "--top-k", 3, "--out", tmp_path / f"all.{kind}", "--shard", f"{shard}/2")
    files = [str(tmp_path / f"all-{shard:05}-of-00002.{kind}") for shard in range(2)]
    read = load_dataset({"jsonl": "json"}.get(kind, kind), data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    want = tool("predict", model, "--dataset", DIGITS, "--split", "test[:21]", "--top-k", 3, "--json").lines()
    assert len(want) == len(read) == 21
    assert [row["truth"] for row in want] == [digits.names[label] for label in digits["test"][:21]["label"]]
    for got, row in zip(read, want, strict=True):
        assert (got["image"], str(got["truth"])) == (row["image"], row["truth"])
        best = got["predictions"] if kind != "csv" else [{"label": got["label"], "score": got["score"]}, {"label": got["label_2"], "score": got["score_2"]}]
        for guess, wanted in zip(best, row["predictions"]):
            assert guess["label"] == wanted["label"] and guess["score"] == pytest.approx(wanted["score"], rel=1e-6)
    tool("predict", model, "--dataset", DIGITS, "--split", "test[:21]", "--out", tmp_path / f"all.{kind}", "--shard", "1/2", code=2)


def test_unreadable_image_in_a_batch(tool, pictures, tmp_path):
    """The others are in the file, and a later run adds what has become readable."""
    files = pictures(16, 16)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    out = tmp_path / "out.jsonl"
    result = tool("predict", GOLDEN / "bases" / "vit", *files, broken, "--out", out, code=6)
    assert "broken.png" in result.err
    assert [json.loads(line)["image"] for line in out.read_text().splitlines()] == [str(f) for f in files]


def test_killed_batch_goes_on(tool, digits, tmp_path):
    """SIGKILL at some point of the run; the next one classifies the rest only."""
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    command = ["predict", str(GOLDEN / "bases" / "vit"), "--dataset", str(DIGITS), "--split", "train", "--batch-size", "2"]
    tool(*command, "--out", whole)
    journal = out.with_name("out.jsonl.partial")
    process = subprocess.Popen([tool.program, *command, "--out", str(out)], env={**os.environ, "HUBTOOL_ENGINE": "go"}, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 100):
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not out.exists() and journal.exists()
    assert "are classified already" in tool(*command, "--out", out).err
    assert out.read_bytes() == whole.read_bytes() and not journal.exists()
