"""The fields of transformers' TrainingArguments in a config."""

import dataclasses
import json

import torch
from conftest import recipe
from transformers import Trainer, TrainingArguments

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
    assert not [name for name in given if name not in texts and f"training.{name} is" not in named and name != "hub_token"]
    assert "training.hub_token must be left out" in named


def test_every_field_is_known(tool, tmp_path):
    file = recipe(tmp_path / "config.json", tmp_path / "out")
    config = json.loads(file.read_text())
    config["training"] |= {field.name: None for field in dataclasses.fields(TrainingArguments) if field.name not in config["training"]}
    file.write_text(json.dumps(config))
    tool("train", file, "--dry-run")


def test_steps_are_those_of_trainer(tool, tmp_path):
    """Logged, evaluated and saved at the same steps: shares of all, what follows from others, and the end."""
    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, labels=None):
            return {"loss": (self.w * x).mean()}

    rows = [{"x": torch.ones(1), "labels": 0}] * 32
    settings = dict(per_device_train_batch_size=4, max_steps=11, eval_strategy="steps", logging_steps=4, save_strategy="steps", save_steps=0.4, save_total_limit=9)
    arguments = TrainingArguments(output_dir=str(tmp_path / "theirs"), report_to="none", use_cpu=True, disable_tqdm=True, remove_unused_columns=False, **settings)
    trainer = Trainer(model=Tiny(), args=arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()

    file = recipe(tmp_path / "config.json", tmp_path / "ours", training=settings, train_split="train[:32]", eval_split="test[:16]")
    tool("train", file)
    ours = json.loads((tmp_path / "ours" / "trainer_state.json").read_text())
    for kind in ("loss", "eval_loss"):
        assert [e["step"] for e in ours["log_history"] if kind in e] == [e["step"] for e in trainer.state.log_history if kind in e]
    assert {p.name for p in (tmp_path / "ours").glob("checkpoint-*")} == {p.name for p in (tmp_path / "theirs").glob("checkpoint-*")}
    assert [ours[k] for k in ("eval_steps", "logging_steps", "save_steps")] == [getattr(trainer.state, k) for k in ("eval_steps", "logging_steps", "save_steps")]
