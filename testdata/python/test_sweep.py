"""Several runs from one config, alone or as tasks of a cluster."""

import json
import os

from conftest import GOLDEN, recipe

BASE = GOLDEN / "bases" / "vit"


def config(folder):
    file = recipe(folder / "config.json", folder / "out", adapter=dict(peft_type="LORA", r=2), own_transforms=False, train_split="train[:32]",
                  eval_split="test[:16]", training=dict(num_train_epochs=1, per_device_train_batch_size=8))  # fmt: skip
    settings = json.loads(file.read_text())
    settings["model"] = str(BASE)
    settings["training"]["ignore_mismatched_sizes"] = True
    settings["sweep"] = {"training.learning_rate": [0.001, 0.005], "adapter.target_modules": [["query"], ["query", "value"]]}
    file.write_text(json.dumps(settings))
    return file


def test_sweep(tool, tmp_path):
    """Every combination is trained as train would, and compared; run again, nothing is trained twice."""
    file = config(tmp_path)
    result = tool("sweep", file, "--json").json()
    assert [run["status"] for run in result["runs"]] == ["finished"] * 4
    pairs = [(run["values"]["training.learning_rate"], json.loads(run["values"]["adapter.target_modules"])) for run in result["runs"]]
    assert pairs == [("0.001", ["query"]), ("0.001", ["query", "value"]), ("0.005", ["query"]), ("0.005", ["query", "value"])]
    settings = json.loads(file.read_text())
    del settings["sweep"]
    settings["training"].update(learning_rate=0.005, output_dir=str(tmp_path / "alone"))
    settings["adapter"]["target_modules"] = ["query"]
    file.with_name("alone.json").write_text(json.dumps(settings))
    tool("train", file.with_name("alone.json"))
    wanted = (tmp_path / "alone" / "adapter_model.safetensors").read_bytes()
    assert (tmp_path / result["runs"][2]["output_dir"] / "adapter_model.safetensors").read_bytes() == wanted
    page = (tmp_path / "out" / "report.html").read_text()
    assert "4 runs" in page and "training.learning_rate" in page and "adapter.target_modules" in page
    again = tool("sweep", file, "--json").json()
    assert [run["status"] for run in again["runs"]] == ["kept"] * 4


def test_tasks(tool, tmp_path, monkeypatch):
    """As an indexed Job of Kubernetes of two pods, one of which is started twice; the last has all runs in its report."""
    file = config(tmp_path)
    for index in ["0", "0", "1"]:
        monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
        result = tool("sweep", file, "--shard", "auto/2", "--json").json()
        assert len(result["runs"]) == 2
    assert "4 runs" in (tmp_path / "out" / "report.html").read_text()
    assert len(list((tmp_path / "out").glob("*/adapter_model.safetensors"))) == 4
    monkeypatch.delenv("JOB_COMPLETION_INDEX")
    for index in range(1, 5):  # a Slurm array that begins at 1
        for name, value in {"ID": index, "MIN": 1, "COUNT": 4}.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
        runs = tool("sweep", file, "--shard", "auto", "--json").json()["runs"]
        assert [run["status"] for run in runs] == ["kept"] and runs[0]["output_dir"].split(os.sep)[-1].startswith(f"{index - 1}-")


def test_wrong_sweeps(tool, tmp_path):
    """All problems at once, and nothing is trained."""
    file = config(tmp_path)
    error = tool("sweep", file, "--vary", "training.lerning_rate=1", "--vary", "seed", "--push", "--json", code=2).error()
    assert len(error["details"]) == 3 and "training.learning_rate" in error["message"]
    assert tool("sweep", file, "--vary", "training.max_grad_norm=1,-1", "--json", code=2).error()
    assert not (tmp_path / "out").exists()
    assert "sweep" in tool("train", file, code=2).err
    listed = tool("sweep", file, "--dry-run").out.splitlines()
    assert len(listed) == 4 and not (tmp_path / "out").exists()


def test_failed_run(tool, tmp_path):
    """The others go on; the report compares what there is."""
    file = config(tmp_path)
    settings = json.loads(file.read_text())
    settings["sweep"] = {"training.learning_rate": [0.001, 1e37]}
    settings["training"].update(max_grad_norm=0, lr_scheduler_type="constant", num_train_epochs=3)
    file.write_text(json.dumps(settings))
    result = tool("sweep", file, "--json", code=1)
    assert [run["status"] for run in result.json()["runs"]] == ["finished", "failed"]
    assert "not finite" in result.error()["message"] or "the loss is" in result.error()["message"]
    assert "1 runs" in (tmp_path / "out" / "report.html").read_text()
