"""Adapters that hubtool trains, seen by PEFT, transformers and huggingface_hub."""

import json
import warnings

import numpy as np
import pytest
import yaml
from conftest import TINY, classifier, logits, pixels, recipe
from huggingface_hub import ModelCard
from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.save_and_load import load_peft_weights
from transformers import TrainerState

# name -> adapter section of the config
ADAPTERS = {
    "lora": dict(peft_type="LORA", r=8, lora_alpha=16, lora_dropout=0.1),
    "rslora": dict(peft_type="LORA", r=4, lora_alpha=4, use_rslora=True),
    "gaussian": dict(peft_type="LORA", r=4, lora_alpha=8, init_lora_weights="gaussian"),
    "patterns": dict(peft_type="LORA", r=4, rank_pattern={"layer.0.attention.attention.query": 2}, alpha_pattern={"value": 3}),
    "all-linear": dict(peft_type="LORA", r=2, target_modules="all-linear"),
    "regex": dict(peft_type="LORA", r=2, target_modules=r".*\.[13]\..*(query|intermediate\.dense)"),
    "layers": dict(peft_type="LORA", r=2, layers_to_transform=[0, 2]),
    "bias-all": dict(peft_type="LORA", r=2, bias="all"),
    "bias-lora-only": dict(peft_type="LORA", r=2, bias="lora_only"),
    "lora-bias": dict(peft_type="LORA", r=2, lora_bias=True),
    "dora": dict(peft_type="LORA", r=4, use_dora=True),
    "loha": dict(peft_type="LOHA", r=4, alpha=8),
    "lokr": dict(peft_type="LOKR", r=4, alpha=8),
    "adalora": dict(peft_type="ADALORA", init_r=6, target_r=3, tinit=2, tfinal=3, deltaT=1),
    "classifier": dict(peft_type="LORA", target_modules="dummy-target-modules"),
    "ia3": dict(peft_type="IA3", target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
}


@pytest.fixture(scope="module", params=ADAPTERS)
def trained(request, hubtool, tmp_path_factory):
    """(folder, what train --json printed) of a short run with one of the adapters."""
    folder = tmp_path_factory.mktemp(request.param)
    config = recipe(
        folder / "config.json",
        folder / "out",
        adapter=ADAPTERS[request.param],
        training=dict(num_train_epochs=2, logging_steps=2),
        train_split="train[:160]",
        eval_split="test[:40]",
    )
    return folder / "out", hubtool("train", config, "--json").json()


def open_in_peft(folder, names) -> PeftModel:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return PeftModel.from_pretrained(classifier(TINY, names), folder).eval()


def test_every_tensor_is_known_to_peft(trained, digits):
    folder, _ = trained
    # Not from_pretrained: PEFT cannot load into a model whose ranks AdaLoRA's rank_pattern has cut already.
    model = get_peft_model(classifier(TINY, digits.names), PeftConfig.from_pretrained(folder))
    stored = load_peft_weights(folder)
    result = set_peft_model_state_dict(model, dict(stored))
    assert not result.unexpected_keys
    assert all(tensor.any() for tensor in stored.values()), "a tensor that training never touched"
    wanted = get_peft_model_state_dict(model).keys()
    # With bias="all" PEFT also writes both copies of the head's bias, and reads neither.
    wanted = {key for key in wanted if "original_module" not in key and ".modules_to_save." not in key}
    assert wanted == stored.keys()


def test_logits(trained, hubtool, digits):
    folder, _ = trained
    want = logits(open_in_peft(folder, digits.names), pixels(folder, digits.image_files))
    np.testing.assert_allclose(hubtool.logits(folder, digits.image_files), want, atol=1e-4)
    assert np.abs(want).max() > 0.1  # an untrained adapter would agree as well


def test_counts(trained, digits):
    folder, summary = trained
    model = PeftModel.from_pretrained(classifier(TINY, digits.names), folder, is_trainable=True)
    if summary["trainable_parameters"] != model.get_nb_trainable_parameters()[0]:
        # AdaLoRA's pruned ranks are gone from the file; training started with all of them.
        assert PeftConfig.from_pretrained(folder).peft_type == "ADALORA"


def test_config(trained, no_warnings):
    folder, _ = trained
    config = PeftConfig.from_pretrained(folder)
    stored = json.loads((folder / "adapter_config.json").read_text())
    assert config.base_model_name_or_path == str(TINY)
    assert config.task_type is None
    assert not stored.keys() - config.to_dict().keys(), "keys that this PEFT does not know"


def test_trainer_state(trained):
    folder, summary = trained
    state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    assert state.global_step == state.max_steps == 10
    assert state.num_train_epochs == 2 and state.epoch == 2
    stored = json.loads((folder / "trainer_state.json").read_text())
    assert stored.keys() == vars(TrainerState()).keys()

    steps = [entry for entry in state.log_history if "loss" in entry]
    assert [entry["step"] for entry in steps] == [2, 4, 6, 8, 10]
    assert all(entry.keys() == {"epoch", "grad_norm", "learning_rate", "loss", "step"} for entry in steps)
    assert steps[0]["learning_rate"] == pytest.approx(4.5e-3)  # the second of ten steps of a linear schedule
    evals = [entry for entry in state.log_history if "eval_accuracy" in entry]
    assert [entry["eval_accuracy"] for entry in evals] == [epoch["eval_accuracy"] for epoch in summary["epochs"]]
    assert state.best_metric == summary["best"]["eval_accuracy"]

    results = json.loads((folder / "all_results.json").read_text())
    wanted = "epoch eval_accuracy eval_loss train_loss train_runtime train_samples_per_second train_steps_per_second"
    assert set(wanted.split()) <= results.keys()


def test_card(trained):
    folder, summary = trained
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "peft"
    assert card.data.base_model
    result = card.data.eval_results[0]
    assert result.metric_type == "accuracy"
    assert result.metric_value == pytest.approx(summary["best"]["eval_accuracy"], abs=5e-5)


def test_checkpoints(trained, digits):
    folder, summary = trained
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert [path.name for path in checkpoints] == ["checkpoint-5", "checkpoint-10"]
    for checkpoint in checkpoints:
        open_in_peft(checkpoint, digits.names)
    assert summary["best"]["checkpoint"].rsplit("/", 1)[-1] in [path.name for path in checkpoints]


def test_labels_survive(trained, hubtool, digits):
    folder, _ = trained
    row = hubtool("predict", folder, digits.image_files[0], "--json", "--top-k", 10).lines()[0]
    assert sorted(p["label"] for p in row["predictions"]) == sorted(digits.names)
    assert sum(p["score"] for p in row["predictions"]) == pytest.approx(1, abs=1e-5)
    assert all(digits.names[p["id"]] == p["label"] for p in row["predictions"])


def test_run_can_be_repeated(trained, tool):
    folder, _ = trained
    assert yaml.safe_load((folder / "run.yaml").read_text())["training"]["seed"] == 0
    tool("train", folder / "run.yaml", "--dry-run", "--out", folder.parent / "again")
    assert not (folder.parent / "again").exists()


@pytest.mark.parametrize("names", ["transformers4", "both"])
def test_other_spellings(tool, digits, tmp_path, names):
    config = recipe(tmp_path / "config.json", tmp_path / "out", adapter=dict(ADAPTERS["lora"], names=names),
                    training=dict(max_steps=3), train_split="train[:96]", eval_split="test[:40]")  # fmt: skip
    tool("train", config)
    stored = load_peft_weights(tmp_path / "out").keys()
    assert any("attention.attention.query.lora_A" in key for key in stored)
    assert any("attention.q_proj.lora_A" in key for key in stored) == (names == "both")
    if names == "both":  # what transformers 5 can read
        want = logits(open_in_peft(tmp_path / "out", digits.names), pixels(tmp_path / "out", digits.image_files))
        np.testing.assert_allclose(tool.logits(tmp_path / "out", digits.image_files), want, atol=1e-4)


def test_kept_features_train_the_same_classifier(hubtool, tmp_path):
    """With and without the features of the frozen backbone in memory; the second is one graph, pixels to gradients."""
    config = recipe(
        tmp_path / "config.json",
        tmp_path / "out",
        adapter=ADAPTERS["classifier"],
        training=dict(num_train_epochs=2),
        train_split="train[:150]",
        eval_split="test[:40]",
    )
    settings = json.loads(config.read_text())
    settings["transforms"]["train"] = settings["transforms"]["eval"]
    config.write_text(json.dumps(settings))
    runs = {}
    for cache in ("1GB", "0"):
        done = hubtool("train", config, "--json", "--dataset.feature-cache", cache, "--out", tmp_path / cache)
        assert done.err.count("the backbone is frozen") == (2 if cache == "1GB" else 0)
        runs[cache] = load_peft_weights(tmp_path / cache), done.json()["epochs"]
    (kept, epochs), (anew, others) = runs["1GB"], runs["0"]
    assert kept.keys() == anew.keys() and len(kept) == 2
    for name, tensor in kept.items():
        np.testing.assert_allclose(tensor, anew[name], atol=1e-6, rtol=0)
    for epoch, other in zip(epochs, others, strict=True):
        assert epoch == pytest.approx(other, abs=1e-5)
