"""Images per second of torch + PEFT on a ViT: the numbers hubtool's own are put beside.

    python bench/torch_vit.py                                # tiny and base, training and inference, as JSON lines
    python bench/torch_vit.py --shape base --mode train --batch 8 --seconds 60

Random weights and pixels, float32 unless told otherwise, LoRA of rank 16 on query and value with the classifier trained in full, AdamW, gradients
clipped at norm 1: the step of PEFT's image-classification guide without its data pipeline. Every line comes from a process of
its own, so that peak_rss (bytes) is that of one case. images_per_second is the batch over the median step. With --trainer the
step is one of transformers' Trainer, fed by a data set.
"""

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

SHAPES = {
    # as testdata/tiny-vit and google/vit-base-patch16-224-in21k; classes as in digits and Food-101
    "tiny": (dict(hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=384, image_size=32, patch_size=4), 10),
    "base": ({}, 101),
}  # fmt: skip
BATCHES = {("tiny", "train"): 32, ("tiny", "infer"): 120, ("base", "train"): 8, ("base", "infer"): 8}


COMMON = dict(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
BUDGET = dict(init_r=16, target_r=8, tinit=200, tfinal=1000, deltaT=10, total_step=10**6)

# method -> (class of peft, settings), with the guide's dropouts
METHODS = {
    "lora": ("LoraConfig", dict(r=16, lora_alpha=16, lora_dropout=0.1)),
    "dora": ("LoraConfig", dict(r=16, lora_alpha=16, lora_dropout=0.1, use_dora=True)),
    "loha": ("LoHaConfig", dict(r=16, alpha=16, module_dropout=0.1)),
    "lokr": ("LoKrConfig", dict(r=16, alpha=16, module_dropout=0.1)),
    "adalora": ("AdaLoraConfig", dict(lora_alpha=16, lora_dropout=0.1, **BUDGET)),
}


class Noise:
    """Images of eight pixels in a PNG, which cost nothing to decode, at the model's size: what bench/main.go trains on."""

    def __init__(self, size: int, classes: int):
        from PIL import Image
        from torchvision import transforms as T

        file = io.BytesIO()
        Image.new("L", (8, 8)).save(file, "png")
        self.file, self.classes = file.getvalue(), classes
        nearest = T.InterpolationMode.NEAREST
        self.transform = T.Compose([T.Resize((size, size), nearest), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, i: int) -> dict:
        from PIL import Image

        image = Image.open(io.BytesIO(self.file)).convert("RGB")
        return {"pixel_values": self.transform(image), "labels": i % self.classes}


def trainer_times(model, size: int, classes: int, batch: int, seconds: float, bf16: bool) -> list[float]:
    """Seconds of each optimizer step of transformers' Trainer, from the end of one to the end of the next."""
    import transformers

    ends = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            ends.append(time.perf_counter())
            control.should_training_stop = len(ends) > 5 and ends[-1] > ends[0] + seconds

    with tempfile.TemporaryDirectory() as out:
        args = transformers.TrainingArguments(
            out, per_device_train_batch_size=batch, learning_rate=5e-3, max_steps=10**6, save_strategy="no", report_to=[], use_cpu=True,
            bf16=bf16, disable_tqdm=True,
        )  # fmt: skip
        trainer = transformers.Trainer(model, args, train_dataset=Noise(size, classes), callbacks=[Clock()])
        trainer.remove_callback(transformers.PrinterCallback)  # standard output is for the result
        trainer.train()
    return [end - start for start, end in zip(ends, ends[1:])]


def measure(shape: str, mode: str, method: str, batch: int, threads: int, seconds: float, trainer: bool, bf16: bool) -> dict:
    import peft
    import torch
    import transformers

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    changes, classes = SHAPES[shape]
    config = transformers.ViTConfig(**changes)
    config.num_labels = classes
    kind, settings = METHODS[method]
    model = peft.get_peft_model(transformers.ViTForImageClassification(config), getattr(peft, kind)(**settings, **COMMON))
    pixels = torch.randn(batch, 3, config.image_size, config.image_size)
    labels = torch.randint(classes, (batch,))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-3, weight_decay=0)

    def autocast():
        return torch.autocast("cpu", torch.bfloat16, enabled=bf16)

    def train() -> None:
        with autocast():
            loss = model(pixel_values=pixels, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if method == "adalora":
            model.base_model.update_and_allocate(len(times) + 1)
        optimizer.zero_grad()

    @torch.inference_mode()
    def infer() -> None:
        with autocast():
            model(pixel_values=pixels).logits.argmax(-1)

    model.train(mode == "train")
    step = train if mode == "train" else infer
    times = []
    if trainer and mode == "train":
        times = trainer_times(model, config.image_size, classes, batch, seconds, bf16)
    else:
        step()  # allocations and the choice of kernels
        end = time.perf_counter() + seconds
        while len(times) < 5 or time.perf_counter() < end:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    return {
        "engine": "torch",
        "version": f"torch {torch.__version__}, transformers {transformers.__version__}, peft {peft.__version__}",
        "shape": shape,
        "mode": mode,
        "batch": batch,
        "threads": threads,
        "steps": len(times),
        "images_per_second": round(batch / statistics.median(times), 2),
        "best_images_per_second": round(batch / min(times), 3),
        "peak_rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES)
    parser.add_argument("--mode", choices=("train", "infer"))
    parser.add_argument("--method", choices=METHODS, default="lora")
    parser.add_argument("--batch", type=int, help="images in a step (default: 32 and 120 for tiny, 8 for base)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15, help="how long to repeat the step, at least five times")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32", help="bfloat16 is autocast's")
    parser.add_argument("--trainer", action="store_true", help="with --shape and --mode train: in transformers' Trainer, with a data set")
    args = parser.parse_args()

    if args.shape and args.mode:
        batch = args.batch or BATCHES[args.shape, args.mode]
        print(json.dumps(measure(args.shape, args.mode, args.method, batch, args.threads, args.seconds, args.trainer, args.precision == "bfloat16")), flush=True)
        return
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(args.threads)}
    for shape, mode in BATCHES:
        if args.shape in (None, shape) and args.mode in (None, mode):
            case = [sys.executable, __file__, "--shape", shape, "--mode", mode, "--threads", str(args.threads)]
            case += ["--seconds", str(args.seconds), "--precision", args.precision] + (["--batch", str(args.batch)] if args.batch else [])
            subprocess.run(case, env=env, check=True)


if __name__ == "__main__":
    main()
