"""What PEFT and transformers' Trainer reach on digits: the numbers in test_accuracy.py.

    python reference.py lora 5            # three seeds, about half a minute of one core each

Prints one JSON line a seed: accuracy in percent and evaluation loss after every epoch. The recipe is that of PEFT's
image-classification guide, scaled down: rank 16 on query and value, classifier trained in full, AdamW, learning rate 5e-3, linear
decay, batch 32, no flips (a mirrored digit is none), evaluation on the 360 test images after every epoch.
"""

import argparse
import json
import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from conftest import DIGITS, TINY, classifier  # noqa: E402
from datasets import load_dataset  # noqa: E402
from goldens.training import Budget  # noqa: E402
from peft import AdaLoraConfig, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model  # noqa: E402
from torchvision import transforms as T  # noqa: E402
from transformers import Trainer, TrainingArguments  # noqa: E402

TARGETS = dict(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])


def adapter(method: str, steps: int):
    if method == "lora":
        return LoraConfig(r=16, lora_alpha=16, lora_dropout=0.1, **TARGETS)
    if method == "loha":
        return LoHaConfig(r=16, alpha=16, module_dropout=0.1, **TARGETS)
    if method == "lokr":
        return LoKrConfig(r=16, alpha=16, module_dropout=0.1, **TARGETS)
    # The guide's tinit=200 and tfinal=1000 belong to runs of about 3,000 steps: keep the proportions.
    schedule = dict(tinit=steps // 15, tfinal=steps // 3, deltaT=5, total_step=steps)
    return AdaLoraConfig(r=8, init_r=12, target_r=8, **schedule, **TARGETS)


def pixels(transform):
    return lambda rows: {"pixel_values": [transform(i.convert("RGB")) for i in rows["image"]], "labels": rows["label"]}


def collate(rows):
    return {
        "pixel_values": torch.stack([row["pixel_values"] for row in rows]),
        "labels": torch.tensor([row["labels"] for row in rows]),
    }


def accuracy(prediction) -> dict:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}


def run(method: str, epochs: int, seed: int) -> list[dict]:
    data = load_dataset(str(DIGITS))
    tail = [T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)]
    train = data["train"].with_transform(pixels(T.Compose([T.RandomResizedCrop(32, scale=(0.6, 1.0)), *tail])))
    test = data["test"].with_transform(pixels(T.Compose([T.Resize(32), T.CenterCrop(32), *tail])))
    model = classifier(TINY, data["train"].features["label"].names, seed=seed)
    model = get_peft_model(model, adapter(method, 45 * epochs))
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch, learning_rate=5e-3, per_device_train_batch_size=32, per_device_eval_batch_size=120,
            num_train_epochs=epochs, eval_strategy="epoch", save_strategy="no", remove_unused_columns=False,
            label_names=["labels"], report_to="none", disable_tqdm=True, use_cpu=True, seed=seed,
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=train, eval_dataset=test, data_collator=collate, compute_metrics=accuracy
        )
        trainer.remove_callback(transformers.PrinterCallback)
        if method == "adalora":
            trainer.add_callback(Budget(model))
        trainer.train()
    return [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=("lora", "loha", "lokr", "adalora"))
    parser.add_argument("epochs", type=int)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    for seed in range(args.seeds):
        evals = run(args.method, args.epochs, seed)
        result = {"method": args.method, "epochs": args.epochs, "seed": seed}
        result["accuracy"] = [round(100 * e["eval_accuracy"], 2) for e in evals]
        result["loss"] = [round(e["eval_loss"], 4) for e in evals]
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
