"""The fields of transformers' TrainingArguments in a config."""

import dataclasses
import json
import pathlib

import pytest
import torch
import yaml
from conftest import recipe
from transformers import Trainer, TrainingArguments

# What Trainer does otherwise or has computed from other arguments: hubtool pushes once, has one process,
# knows which way a metric is better, and is quiet where the script's logging is.
OTHERWISE = {"hub_strategy", "accelerator_config", "greater_is_better", "disable_tqdm"}


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


@pytest.mark.parametrize("given", ["none", ["none"], [], "tensorboard", ["tensorboard"]], ids=str)
def test_report_to(tool, tmp_path, given):
    """One name or a list, as Trainer takes it; the run's own config has the list that TrainingArguments makes of it, and event files come where they are wanted."""
    want = TrainingArguments(output_dir=str(tmp_path), report_to=given, use_cpu=True).report_to
    file = recipe(tmp_path / "config.json", tmp_path / "out", training=dict(report_to=given, max_steps=1), train_split="train[:32]", eval_split="test[:16]")
    tool("train", file)
    assert yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())["training"]["report_to"] == want
    assert len(list((tmp_path / "out").glob("runs/**/*.tfevents.*"))) == len(want)


def test_every_field_is_known(tool, tmp_path):
    file = recipe(tmp_path / "config.json", tmp_path / "out")
    config = json.loads(file.read_text())
    config["training"] |= {field.name: None for field in dataclasses.fields(TrainingArguments) if field.name not in config["training"]}
    file.write_text(json.dumps(config))
    tool("train", file, "--dry-run")


class Tiny(torch.nn.Module):
    """One weight. In evaluation the loss is the next of losses."""

    def __init__(self, losses=()):
        super().__init__()
        self.w, self.losses = torch.nn.Parameter(torch.zeros(1)), iter(losses)

    def forward(self, x, labels=None):
        loss = (self.w * x).mean()
        return {"loss": loss if self.training else torch.tensor(next(self.losses, 0.0)), "logits": self.w * x}


def trainer(folder, losses=(), accuracies=(), **settings) -> Trainer:
    """A Trainer that has trained on 32 rows, and was told in each evaluation that the next loss and the next accuracy are its own."""
    rows, measured = [{"x": torch.ones(1), "labels": 0}] * 32, iter(accuracies)
    arguments = TrainingArguments(output_dir=str(folder), report_to="none", use_cpu=True, disable_tqdm=True, remove_unused_columns=False,
                                  per_device_eval_batch_size=32, **settings)  # fmt: skip
    done = Trainer(model=Tiny(losses), args=arguments, train_dataset=rows, eval_dataset=rows,
                   compute_metrics=(lambda _: {"accuracy": next(measured)}) if accuracies else None)  # fmt: skip
    done.train()
    return done


def best_of(state: dict) -> tuple:
    """What a trainer_state.json says of the best evaluation, less the folder, which is another."""
    return state["global_step"], state["best_global_step"], pytest.approx(state["best_metric"]), pathlib.Path(state["best_model_checkpoint"]).name


def checkpoints(folder) -> set[str]:
    return {p.name for p in folder.glob("checkpoint-*")}


def test_steps_are_those_of_trainer(tool, tmp_path):
    """Logged, evaluated and saved at the same steps: shares of all, what follows from others, and the end."""
    settings = dict(per_device_train_batch_size=4, max_steps=11, eval_strategy="steps", logging_steps=4, save_strategy="steps", save_steps=0.4, save_total_limit=9)
    theirs = trainer(tmp_path / "theirs", **settings).state

    file = recipe(tmp_path / "config.json", tmp_path / "ours", training=settings, train_split="train[:32]", eval_split="test[:16]")
    tool("train", file)
    ours = json.loads((tmp_path / "ours" / "trainer_state.json").read_text())
    for kind in ("loss", "eval_loss"):
        assert [e["step"] for e in ours["log_history"] if kind in e] == [e["step"] for e in theirs.log_history if kind in e]
    assert checkpoints(tmp_path / "ours") == checkpoints(tmp_path / "theirs")
    assert [ours[k] for k in ("eval_steps", "logging_steps", "save_steps")] == [getattr(theirs, k) for k in ("eval_steps", "logging_steps", "save_steps")]


SAVED = {  # Which is best goes up and down: the rate is far too high.
    "best": dict(save_strategy="best", eval_strategy="steps", eval_steps=1),
    "best-1": dict(save_strategy="best", eval_strategy="steps", eval_steps=1, save_total_limit=1),
    "best-2": dict(save_strategy="best", eval_strategy="steps", eval_steps=1, save_total_limit=2, load_best_model_at_end=True),
    "best-epochs": dict(save_strategy="best", eval_strategy="epoch", metric_for_best_model="loss"),
    "best-loss": dict(save_strategy="best", eval_strategy="steps", eval_steps=3, metric_for_best_model="eval_loss"),
    "epoch-1": dict(save_strategy="epoch", eval_strategy="epoch", save_total_limit=1),
    "steps-1": dict(save_strategy="steps", eval_strategy="steps", eval_steps=1, save_steps=1, save_total_limit=1, load_best_model_at_end=True),
    "steps-3": dict(save_strategy="steps", eval_strategy="steps", eval_steps=1, save_steps=2, save_total_limit=3, load_best_model_at_end=True),
}


@pytest.mark.parametrize("case", SAVED)
def test_saved_is_what_trainer_saves(tool, tmp_path, case):
    """The same checkpoints after the same evaluations, and the same words about the best of them, in each checkpoint's state and in the run's."""
    settings = dict(per_device_train_batch_size=8, max_steps=14, learning_rate=0.05, lr_scheduler_type="constant",
                    **{"load_best_model_at_end": False, "metric_for_best_model": "accuracy", **SAVED[case]})  # fmt: skip
    file = recipe(tmp_path / "config.json", tmp_path / "ours", training=settings, train_split="train[:32]", eval_split="test[:60]")
    tool("train", file)
    ours = json.loads((tmp_path / "ours" / "trainer_state.json").read_text())
    evaluated = [entry for entry in ours["log_history"] if "eval_loss" in entry]
    values = [[entry[key] for entry in evaluated] for key in ("eval_loss", "eval_accuracy")]
    assert len({*values[0]}) == len(values[0])
    theirs = trainer(tmp_path / "theirs", *values, **settings).state
    assert checkpoints(tmp_path / "ours") == checkpoints(tmp_path / "theirs")
    assert best_of(ours) == best_of(dataclasses.asdict(theirs))
    for name in checkpoints(tmp_path / "ours"):
        states = [json.loads((tmp_path / folder / name / "trainer_state.json").read_text()) for folder in ("ours", "theirs")]
        assert best_of(states[0]) == best_of(states[1])
        assert states[0]["save_steps"] == states[1]["save_steps"]


def test_best_wants_evaluation(tool, tmp_path):
    """Trainer asks for a metric there; hubtool, which has one, says what is in its way."""
    settings = dict(save_strategy="best", eval_strategy="no")
    with pytest.raises(ValueError, match="metric_for_best_model"):
        trainer(tmp_path / "theirs", **settings)
    file = recipe(tmp_path / "config.json", tmp_path / "ours", training=settings)
    assert "eval_strategy is no" in tool("train", file, code=2).err
