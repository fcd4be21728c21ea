"""Pictures for bench/data: JPEG files with the sizes, the sampling and about the bytes of Food-101's, and its first Parquet file.

    python bench/data/make.py OUT [--images 1000] [--seed 0] [--shard-rows 9469]

OUT/folder has a folder of each class, OUT/food a card for 75,750 rows and the first of eight Parquet files, written as
`datasets` 2 did. The pictures are dead leaves: textured discs that hide each other, with soft light and a sensor's noise. Their
spectrum and their edges are like a photograph's (Lee, Mumford and Huang 2001), which noise or plain colours are not: they decide
how long an entropy decoder works. The same seed gives the same files with the same Pillow.
"""

import argparse
import io
import pathlib

import numpy as np
from PIL import Image

SIZES = [(512, 512)] * 6 + [(512, 384)] * 3 + [(384, 512), (512, 341), (512, 306)]  # width, height
CLASSES = 101
ROWS, SHARDS = 75_750, 8


def pink(rng: np.random.Generator, height: int, width: int, slope: float) -> np.ndarray:
    """Noise whose amplitude falls with the frequency: a texture, of mean 0 and deviation 1."""
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    amplitude = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width)) ** slope
    amplitude[0, 0] = 0
    field = np.fft.irfft2(amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape)), s=(height, width))
    return (field - field.mean()) / field.std()


def picture(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    texture = [pink(rng, height, width, slope) for slope in (0.8, 1.1, 1.5)]
    image = np.zeros((height, width, 3))
    y, x = np.mgrid[:height, :width]
    radii = np.sort(6 + 150 * rng.random(90) ** 3)[::-1]
    radii[0] = 1000  # the table
    for radius in radii:
        cx, cy = rng.random() * width, rng.random() * height
        top, bottom = int(max(0, cy - radius)), int(min(height, cy + radius + 1))
        left, right = int(max(0, cx - radius)), int(min(width, cx + radius + 1))
        if top >= bottom or left >= right:
            continue
        part = np.s_[top:bottom, left:right]
        distance = np.hypot(x[part] - cx, (y[part] - cy) * rng.uniform(0.7, 1.4))
        cover = np.clip((radius - distance) / rng.uniform(1, 3), 0, 1)[..., None]  # a soft edge, as lenses make them
        colour = rng.random(3) * 200 + 25
        shade = texture[rng.integers(3)][part] * rng.uniform(4, 22)
        light = 1 - 0.25 * np.clip(distance / radius, 0, 1)
        image[part] = image[part] * (1 - cover) + (colour + shade[..., None]) * light[..., None] * cover
    image += rng.normal(0, 2.0, image.shape)
    return Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))


def encoded(rng: np.random.Generator) -> bytes:
    width, height = SIZES[rng.integers(len(SIZES))]
    out = io.BytesIO()
    picture(rng, width, height).save(out, "JPEG", quality=int(rng.choice([75, 85, 90, 92])), subsampling=2)
    return out.getvalue()


def shard(path: pathlib.Path, files: list, rows: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features
    from datasets import Image as ImageFeature

    names = [f"class_{i:03}" for i in range(CLASSES)]
    schema = Features({"image": ImageFeature(), "label": ClassLabel(names=names)}).arrow_schema
    with pq.ParquetWriter(path, schema, compression="snappy", use_dictionary=True) as writer:
        for start in range(0, rows, 100):
            part = [files[i % len(files)] for i in range(start, min(start + 100, rows))]
            images = [{"bytes": data, "path": None} for data, _ in part]
            writer.write_table(pa.table({"image": images, "label": [label for _, label in part]}, schema=schema))
    card = "\n".join(f"          '{i}': {name}" for i, name in enumerate(names))
    (path.parent.parent / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\ndataset_info:\n  features:\n"
        f"  - name: image\n    dtype: image\n  - name: label\n    dtype:\n      class_label:\n        names:\n{card}\n"
        f"  splits:\n  - name: train\n    num_examples: {ROWS}\n---\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard-rows", type=int, default=-(-ROWS // SHARDS), help="0: no Parquet file")
    args = parser.parse_args()
    rng, files = np.random.default_rng(args.seed), []
    for i in range(args.images):
        data, label = encoded(rng), i % CLASSES
        folder = args.out / "folder" / f"class_{label:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:05}.jpg").write_bytes(data)
        files.append((data, label))
    print(f"{len(files)} pictures, {sum(len(d) for d, _ in files) / len(files) / 1e3:.1f} kB on average")
    if args.shard_rows:
        first = args.out / "food" / "data" / f"train-00000-of-{SHARDS:05}.parquet"
        first.parent.mkdir(parents=True, exist_ok=True)
        shard(first, files, args.shard_rows)
        print(f"{first}: {args.shard_rows} rows, {first.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
