"""What transformers' Trainer makes of an adapter in a few steps: losses, gradient norms and the updated tensors."""

import pathlib
import tempfile

import torch
import transformers
from peft import PeftModel
from peft.optimizers import create_loraplus_optimizer
from transformers import Trainer, TrainerCallback, TrainingArguments

from . import adapters, bases, common

STEP = dict(images=8, per_device_train_batch_size=8, max_steps=1)
# Batches of 4, two of them a step. 14 images: the second step of an epoch has 4 + 2; 18 images: the third has 2 alone.
EPOCHS = dict(images=14, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=5)
SHORT = dict(images=8, per_device_train_batch_size=4, max_steps=3)

# folder -> (adapter to start from, settings)
CASES = {
    "one-step": ("lora/classifier", STEP),
    "one-step-decay": ("lora/classifier", dict(STEP, weight_decay=0.01)),
    "accumulate": ("lora/classifier", EPOCHS),
    "accumulate-decay-cosine": (
        "lora/classifier", dict(EPOCHS, images=18, weight_decay=0.01, lr_scheduler_type="cosine", warmup_steps=2),
    ),
    "label-smoothing": ("lora/classifier", dict(EPOCHS, label_smoothing_factor=0.1)),
    "loraplus": ("lora/classifier", dict(EPOCHS, weight_decay=0.01, loraplus_lr_ratio=8)),
    "tight-clip": ("lora/classifier", dict(SHORT, max_grad_norm=0.05)),
    "bias-lora-only-decay": ("lora/bias-lora-only", dict(SHORT, weight_decay=0.1)),
    "rslora": ("lora/rslora", SHORT),
    "lora-bias": ("lora/lora-bias", SHORT),
    "dora": ("dora/classifier", SHORT),
    "loha": ("loha/classifier", SHORT),
    "lokr": ("lokr/low-rank", SHORT),
    "ia3": ("ia3/key-value", SHORT),
    "adalora": ("adalora/whole", SHORT),
    "adalora-budget": ("adalora/whole", dict(SHORT, max_steps=8)),
    "adalora-penalty": ("adalora/whole", SHORT),
}  # fmt: skip


class Budget(TrainerCallback):
    """AdaLoRA's rank allocation where its documentation puts it: after the optimizer step, before the gradients go."""

    def __init__(self, model):
        self.model = model

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.model.base_model.update_and_allocate(state.global_step + 1)


class Rows(torch.utils.data.Dataset):
    def __init__(self, pixels, labels):
        self.pixels, self.labels = pixels, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"pixel_values": self.pixels[i], "labels": self.labels[i]}


def make(root: pathlib.Path, name: str) -> None:
    adapter, settings = CASES[name]
    images = settings["images"]
    base = adapters.CASES[adapter][0]
    model = PeftModel.from_pretrained(adapters.open_base(root, base), root / adapter, is_trainable=True)
    data = common.load(root / "training" / "batch.safetensors")
    pixels = (data["images"].permute(0, 3, 1, 2) / 255 - 0.5) / 0.5  # ToTensor and Normalize
    folder = root / "training" / name

    with tempfile.TemporaryDirectory() as scratch:
        ratio = settings.get("loraplus_lr_ratio")
        arguments = TrainingArguments(
            output_dir=scratch, learning_rate=5e-3, logging_steps=1, train_sampling_strategy="sequential", save_strategy="no",
            report_to="none", remove_unused_columns=False, label_names=["labels"], disable_tqdm=True, use_cpu=True,
            **{key: value for key, value in settings.items() if key not in ("images", "loraplus_lr_ratio")},
        )  # fmt: skip
        # AdaLoRA adds its penalty in a method that PeftModel passes by for image classifiers.
        trained = model.base_model if name.endswith("penalty") else model
        optimizer = None
        if ratio:
            optimizer = create_loraplus_optimizer(
                model, torch.optim.AdamW, lr=5e-3, loraplus_lr_ratio=ratio, loraplus_weight_decay=arguments.weight_decay,
            )  # fmt: skip
        trainer = Trainer(model=trained, args=arguments, optimizers=(optimizer, None), train_dataset=Rows(pixels[:images], data["labels"][:images]))
        trainer.remove_callback(transformers.PrinterCallback)
        if name.endswith("budget"):
            trainer.add_callback(Budget(model))
        trainer.train()
    log = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
    # What settings do not name is at Trainer's default: AdamW 0.9/0.999, eps 1e-8, linear decay, clipping at norm 1.
    common.save_json(folder / "case.json", {"adapter": adapter, "base": base, "learning_rate": 5e-3, **settings, "log": log})
    model.save_pretrained(folder)
    (folder / "README.md").unlink()


def write(root: pathlib.Path) -> None:
    count = 18
    images = common.uniform("training", (count, 16, 16, 3), 0, 256).to(torch.uint8)
    labels = torch.tensor([(3 * i + i // 4) % len(bases.LABELS) for i in range(count)])
    common.save(root / "training" / "batch.safetensors", images=images, labels=labels)
    for name in CASES:
        make(root, name)
