"""Images per CPU second of torchvision's pipeline with PIL: ImageFolder and DataLoader. Prints one JSON object.

    python bench/data/torch_data.py FOLDER train|eval [--workers 2] [--batch 32]

CPU time is that of this process and its workers from the first batch that is asked for to the end of the workers; importing
torch is not counted.
"""

import argparse
import json
import resource
import time

import torch
from PIL import features
from torch.utils.data import DataLoader
from torchvision import __version__, transforms
from torchvision.datasets import ImageFolder


def cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("mode", choices=["train", "eval"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    first = {
        "train": [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()],
        "eval": [transforms.Resize(224), transforms.CenterCrop(224)],
    }[args.mode]
    half = [0.5, 0.5, 0.5]
    pipeline = transforms.Compose([*first, transforms.ToTensor(), transforms.Normalize(half, half)])
    data = ImageFolder(args.folder, pipeline)
    start, used, images = time.perf_counter(), cpu(), 0
    for pixels, _ in DataLoader(data, args.batch, shuffle=args.mode == "train", num_workers=args.workers):
        images += len(pixels)
    used, seconds = cpu() - used, time.perf_counter() - start
    pillow = f"Pillow with libjpeg-turbo {features.version_feature('libjpeg_turbo')}"
    print(json.dumps({"images": images, "cpu_seconds": used, "seconds": seconds, "version": f"torchvision {__version__}, {pillow}"}))


if __name__ == "__main__":
    main()
