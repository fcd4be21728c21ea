"""The fields of transformers' TrainingArguments in a config."""

import dataclasses
import json

from conftest import recipe
from transformers import TrainingArguments

# What Trainer does otherwise or has computed from other arguments: hubtool pushes once, has one process and no list of services,
# knows which way a metric is better, and is quiet where the script's logging is.
OTHERWISE = {"hub_strategy", "accelerator_config", "report_to", "greater_is_better", "disable_tqdm"}


def test_a_script_s_arguments_are_a_config(tool, tmp_path):
    """All arguments of a script are understood, those that are at their defaults included; what cannot be had is named with a reason."""
    script = TrainingArguments(
        output_dir=str(tmp_path / "out"), learning_rate=5e-3, num_train_epochs=5, warmup_steps=0.1, eval_strategy="steps", logging_steps=10,
        save_strategy="epoch", metric_for_best_model="accuracy", use_cpu=True,
    )  # fmt: skip
    given = {name: value for name, value in script.to_dict().items() if name not in OTHERWISE | {"use_cpu"}}
    file = recipe(tmp_path / "config.json", tmp_path / "out")
    config = json.loads(file.read_text())
    config["training"] = given
    file.write_text(json.dumps(config))
    assert tool("train", file, "--dry-run", "--json").json()["steps"] == 5 * 180

    wrong = {name: "else" for name in given}
    config["training"] = {**wrong, "per_gpu_train_batch_size": 8}
    file.write_text(json.dumps(config))
    problems = tool("train", file, "--dry-run", "--json", code=2).error()["details"]
    assert [p.split('"')[1] for p in problems if "unknown key" in p] == ["training.per_gpu_train_batch_size"]
    named = "\n".join(problems)
    texts = {"output_dir", "hub_model_id", "resume_from_checkpoint"}  # which may be anything
    assert not [name for name in given if name not in texts and f"training.{name} is" not in named]


def test_every_field_is_known(tool, tmp_path):
    file = recipe(tmp_path / "config.json", tmp_path / "out")
    config = json.loads(file.read_text())
    config["training"] |= {field.name: None for field in dataclasses.fields(TrainingArguments) if field.name not in config["training"]}
    file.write_text(json.dumps(config))
    tool("train", file, "--dry-run")
