"""Fifty steps of hubtool's training beside PEFT and transformers' Trainer: the same start, the same order, the same losses."""

import json

import numpy as np
import pytest
import torch
import transformers
from conftest import DIGITS, TINY, classifier, recipe
from peft import LoraConfig, get_peft_model
from torchvision import transforms as T
from transformers import Trainer, TrainingArguments

STEPS = 50
PLAIN = dict(per_device_train_batch_size=8, learning_rate=5e-3, max_steps=STEPS)
LARGE = dict(PLAIN, per_device_train_batch_size=32)

# name -> settings, which mean the same to both
CASES = {
    "plain": PLAIN,
    "batch-32": LARGE,
    "accumulate-4x8": dict(PLAIN, gradient_accumulation_steps=4),
    "partial-groups": dict(PLAIN, gradient_accumulation_steps=7),  # of the 180 batches of an epoch, 5 are left
    "clip": dict(PLAIN, max_grad_norm=0.1),
    "no-clip": dict(PLAIN, max_grad_norm=0.0),
    "cosine-warmup-decay": dict(PLAIN, lr_scheduler_type="cosine", warmup_steps=10, weight_decay=0.1),
    "constant-betas": dict(PLAIN, lr_scheduler_type="constant_with_warmup", warmup_steps=0.2, adam_beta1=0.8, adam_beta2=0.99, adam_epsilon=1e-6),
}  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory, digits):
    """A folder with a new LoRA adapter and head, saved by PEFT, from which all runs start."""
    folder = tmp_path_factory.mktemp("start")
    new_model(digits).save_pretrained(folder)
    return folder


def new_model(digits):
    model = classifier(TINY, digits.names, seed=7)
    torch.manual_seed(8)
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"]))


@pytest.fixture(scope="module")
def images(digits):
    """The training images as torchvision prepares them, and their labels."""
    prepare = T.Compose([T.Resize(32), T.CenterCrop(32), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    rows = digits["train"]
    return [{"pixel_values": prepare(row["image"].convert("RGB")), "labels": row["label"]} for row in rows]


@pytest.fixture(scope="module")
def reference(digits, images, tmp_path_factory):
    """What Trainer logs in each step, by name of the case or by settings."""
    done = {}

    def run(name, **more):
        key = name, *more
        if key not in done:
            arguments = TrainingArguments(
                output_dir=str(tmp_path_factory.mktemp("trainer")), logging_steps=1, train_sampling_strategy="sequential",
                save_strategy="no", report_to="none", remove_unused_columns=False, label_names=["labels"], disable_tqdm=True,
                use_cpu=True, **CASES[name], **more,
            )  # fmt: skip
            trainer = Trainer(model=new_model(digits), args=arguments, train_dataset=images)
            trainer.remove_callback(transformers.PrinterCallback)
            trainer.train()
            done[key] = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
        return done[key]

    return run


def train(hubtool, start, folder, settings, *args):
    """What hubtool logs in each step."""
    config = recipe(
        folder / "config.json", folder / "out",
        adapter=dict(peft_type="LORA", r=8, lora_alpha=16),
        training=dict(settings, init_adapter=str(start), train_sampling_strategy="sequential", logging_steps=1,
                      eval_strategy="no", save_strategy="no", load_best_model_at_end=False),
        eval_split=None, test_size=0,
    )  # fmt: skip
    raw = json.loads(config.read_text())
    del raw["dataset"]["eval_split"]
    raw["transforms"]["train"] = raw["transforms"]["eval"]
    config.write_text(json.dumps(raw))
    hubtool("train", config, *args)
    state = json.loads((folder / "out" / "trainer_state.json").read_text())
    return [entry for entry in state["log_history"] if "loss" in entry]


def column(log, key) -> np.ndarray:
    return np.array([entry[key] for entry in log])


def assert_curve(got, want, tolerance):
    assert len(got) == len(want) == STEPS
    assert want[-10:].mean() < 0.5 * want[:10].mean(), "nothing was learnt, so nothing was compared"
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * want.mean())


def assert_parity(got, want):
    assert_curve(column(got, "loss"), column(want, "loss"), 0.01)
    np.testing.assert_allclose(column(got, "grad_norm"), column(want, "grad_norm"), rtol=0.03)
    np.testing.assert_allclose(column(got, "learning_rate"), column(want, "learning_rate"), rtol=1e-12)
    np.testing.assert_allclose(column(got, "epoch"), column(want, "epoch"), rtol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_float32(xla, start, reference, tmp_path, name):
    assert_parity(train(xla, start, tmp_path, CASES[name]), reference(name))


@pytest.mark.parametrize("name", ["plain"])  # the loop around the engine is the same
def test_float32_go(tool, start, reference, tmp_path, name):
    assert_parity(train(tool, start, tmp_path, CASES[name]), reference(name))


def test_accumulation_is_a_larger_batch(xla, start, tmp_path):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = train(xla, start, tmp_path / "a", CASES["batch-32"])
    parts = train(xla, start, tmp_path / "b", CASES["accumulate-4x8"])
    # 1437 images are 45 batches of 32 or 180 of 8: the last step of the epoch is the same in both.
    np.testing.assert_allclose(column(parts, "loss"), column(whole, "loss"), rtol=1e-3)
    np.testing.assert_allclose(column(parts, "grad_norm"), column(whole, "grad_norm"), rtol=1e-2)


@pytest.fixture(scope="module")
def half_reference(digits, images, reference):
    """The losses of fifty steps in a half precision. Trainer has no float16 on a processor: its steps are written out."""

    def run(precision):
        if precision == "bf16":
            return column(reference("plain", bf16=True), "loss")
        model, settings, losses = new_model(digits).train(), CASES["plain"], []
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=settings["learning_rate"], weight_decay=0)
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, 0, STEPS)
        scaler = torch.amp.GradScaler("cpu")
        for step in range(STEPS):
            rows = images[8 * step : 8 * step + 8]
            with torch.autocast("cpu", dtype=torch.float16):
                logits = model(pixel_values=torch.stack([row["pixel_values"] for row in rows])).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([row["labels"] for row in rows]))
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            before = scaler.get_scale()
            scaler.update()
            if scaler.get_scale() >= before:
                schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return np.array(losses)

    return run


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision(xla, start, half_reference, tmp_path, precision):
    log = train(xla, start, tmp_path, CASES["plain"], "--precision", precision)
    assert_curve(column(log, "loss"), half_reference(precision), 0.03)
    # The adapter is float32, and evaluating it in either precision gives nearly the same loss.
    evaluate = ["eval", tmp_path / "out", "--dataset", DIGITS, "--json", "--precision"]
    assert xla(*evaluate, precision).json()["loss"] == pytest.approx(xla(*evaluate, "fp32").json()["loss"], rel=0.03)


def test_devices(xla, start, reference, tmp_path):
    settings = dict(CASES["plain"], per_device_train_batch_size=2)
    assert_parity(train(xla, start, tmp_path, settings, "--devices", 4), reference("plain"))


@pytest.mark.parametrize("setting", ["fp16=true", "bf16=true", "devices=2", "gradient_checkpointing=true", "tf32=false", "full_determinism=true"])
def test_go_engine_refuses(tool, start, tmp_path, setting):
    key, value = setting.split("=")
    config = recipe(tmp_path / "config.json", tmp_path / "out", training={"init_adapter": str(start), key: json.loads(value)})
    error = tool("train", config, "--json", code=2).error()
    assert f"training.{key}" in str(error)
    assert not (tmp_path / "out").exists()
