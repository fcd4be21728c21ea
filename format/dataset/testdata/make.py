"""Make the fixtures and golden files of package dataset with the real `datasets`, numpy and pyarrow.

    python make.py            # rewrites this folder; needs datasets 5.2, Pillow, pyarrow
    python make.py --out DIR  # elsewhere: make_goldens.py --check compares that with what is committed

Fixtures are small data sets, a folder each. rows.json says what `load_dataset` reads from them: per split the number of
rows, and an MD5 over one line "<MD5 of the image file> <label> <file name>" per row. files.json, globs.json, slices.json
and shuffles.json hold what its functions answer for trees of file names, patterns, split expressions and seeds.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import zipfile

SCRIPT = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(SCRIPT)))
parser = argparse.ArgumentParser()
parser.add_argument("--out", default=SCRIPT)
HERE = os.path.abspath(parser.parse_args().out)
TEMP = tempfile.mkdtemp()
os.environ["HF_DATASETS_CACHE"] = os.path.join(TEMP, "cache")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, os.path.join(ROOT, "testdata"))

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import datasets  # noqa: E402
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, concatenate_datasets, load_dataset  # noqa: E402
from datasets.arrow_reader import ReadInstruction  # noqa: E402
from datasets.data_files import DataFilesDict, get_data_patterns, resolve_pattern  # noqa: E402
from datasets.load import infer_module_for_data_files  # noqa: E402
from datasets.packaged_modules import (  # noqa: E402
    _ALL_ALLOWED_EXTENSIONS, _MODULE_TO_EXTENSIONS, _MODULE_TO_METADATA_FILE_NAMES,
)  # fmt: skip
from PIL import Image as PILImage  # noqa: E402

import repo  # noqa: E402

datasets.disable_progress_bars()
datasets.logging.set_verbosity_error()

drawn = 0


def png(size: int = 3) -> bytes:
    """A different little picture on every call."""
    global drawn
    drawn += 1
    pixels = np.random.default_rng(drawn).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    PILImage.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def put(path: str, content: bytes | str) -> None:
    path = os.path.join(HERE, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as out:
        out.write(content.encode() if isinstance(content, str) else content)


def pack(path: str, members: dict[str, bytes | str], method=zipfile.ZIP_DEFLATED) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content, method)
    put(path, out.getvalue())


def class_label_yaml(names: list[str], indent: str = "") -> str:
    lines = ["features:", "- name: image", "  dtype: image", "- name: label", "  dtype:", "    class_label:", "      names:"]
    lines += [f"        '{i}': {name}" for i, name in enumerate(names)]
    return "".join(indent + line + "\n" for line in lines)


def card(path: str, text: str) -> None:
    put(os.path.join(path, "README.md"), f"---\n{text.rstrip()}\n---\n\n# {os.path.basename(path)}\n")


def examples(count: int, classes: int, first: int = 0) -> list[dict]:
    return [
        {"image": {"bytes": png(), "path": f"{first + i:04d}.png"}, "label": (first + i) * 7 % classes}
        for i in range(count)
    ]


def parquet(path: str, rows: list[dict], feats: Features, schema: pa.Schema | None = None, metadata=True, **options) -> None:
    """Write rows with pyarrow, by default with the metadata of `datasets`."""
    table = pa.Table.from_pylist(rows, schema=schema or feats.arrow_schema)
    if metadata:
        table = table.replace_schema_metadata(feats.arrow_schema.metadata)
    else:
        table = table.replace_schema_metadata(None)
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    put(path, out.getvalue())


# --- fixtures -------------------------------------------------------------------------------------------------------

CASES: list[dict] = []


def case(directory: str, name: str = "", config: str | None = None, label: str | None = "label", image: str = "image",
         encode: bool = False, options: dict | None = None, read: str | None = None, cwd: bool = False) -> None:
    """Note what load_dataset reads. options are those that Go needs to read the same; read is another folder to load."""
    where = os.path.join(HERE, read or directory) if not os.path.isabs(directory) else directory
    if cwd:
        os.chdir(where)
    loaded = load_dataset(where, config)
    os.chdir(HERE)
    if label and "." in label and label not in next(iter(loaded.values())).features:
        outer, inner = label.split(".")  # a member of an object
        loaded = DatasetDict({
            s: rows.add_column(label, [row[inner] if row else None for row in rows[outer]]) for s, rows in loaded.items()
        })  # fmt: skip
    if encode:
        order = list(loaded)
        whole = concatenate_datasets([loaded[s] for s in order]).class_encode_column(label)
        sizes = np.cumsum([0] + [len(loaded[s]) for s in order])
        loaded = DatasetDict({s: whole.select(range(sizes[i], sizes[i + 1])) for i, s in enumerate(order)})
    names = None
    splits = []
    for split, rows in loaded.items():
        if label:
            names = rows.features[label].names if isinstance(rows.features[label], ClassLabel) else None
        rows = rows.cast_column(image, Image(decode=False))
        lines = [line(row, image, label, where) for row in rows]
        splits.append({
            "name": split, "rows": len(rows), "first": lines[:3],
            "md5": hashlib.md5("".join(x + "\n" for x in lines).encode()).hexdigest(),
        })  # fmt: skip
    CASES.append({
        "dir": directory if not os.path.isabs(directory) else os.path.relpath(directory, SCRIPT),
        "name": name, "options": {**({"Config": config} if config else {}), **(options or {})},
        "names": names, "splits": splits,
    })  # fmt: skip


def line(row: dict, image: str, label: str | None, cwd: str) -> str:
    value = row[image]
    number = row[label] if label and row[label] is not None else -1
    if value is None:
        return f"null {number}"
    path, content = value["path"], value["bytes"]
    if content is None:
        if "::" in path:
            member, archive = path.removeprefix("zip://").split("::")
            content = zipfile.ZipFile(archive).read(member)
            path = member
        else:
            with open(os.path.join(cwd, path), "rb") as f:
                content = f.read()
    return f"{hashlib.md5(content).hexdigest()} {number} {os.path.basename(path or '')}"


def parquet_fixtures() -> None:
    case(os.path.join(ROOT, "testdata", "digits"))

    names = ["ant", "bee", "cow"]
    feats = repo.features(names)

    # The old generation: two shards, row groups of 100, everything dictionary encoded and Snappy.
    body = "Rows as `datasets` 2 wrote them."
    repo.write(os.path.join(HERE, "old"), {"train": examples(230, 3), "test": examples(20, 3)}, names, "old", body)
    whole = pq.read_table(os.path.join(HERE, "old/data/train-00000-of-00001.parquet"))
    os.remove(os.path.join(HERE, "old/data/train-00000-of-00001.parquet"))
    for i, part in enumerate([whole.slice(0, 205), whole.slice(205)]):
        pq.write_table(part, os.path.join(HERE, f"old/data/train-0000{i}-of-00002.parquet"), row_group_size=100)
    case("old")

    # Layouts that differ in how images are stored. Null images and labels, rows with a path only, many small pages.
    rows = examples(90, 3)
    rows[3]["label"] = None
    rows[4]["image"] = {"bytes": None, "path": "extra/one.png"}
    rows[40]["image"] = None
    rows[41]["image"] = {"bytes": b"", "path": None}
    for i in range(60, 80):
        rows[i]["image"] = {"bytes": None, "path": "extra/two.png"}
    extra = png(), png()
    plain = {"compression": "none", "use_dictionary": False, "row_group_size": 35, "data_page_size": 700, "write_batch_size": 5}
    layouts = {
        "plain": plain,
        "page-v2": {**plain, "data_page_version": "2.0", "write_page_index": True},
        "dictionary": {"compression": "none", "row_group_size": 35},
        "zstd": {**plain, "compression": "zstd"},
        "delta": {**plain, "column_encoding": {"image.bytes": "DELTA_LENGTH_BYTE_ARRAY", "image.path": "DELTA_BYTE_ARRAY",
                                               "label": "DELTA_BINARY_PACKED"}},
        "statistics": {**plain, "write_statistics": True, "data_page_size": 200, "write_page_checksum": True},
    }  # fmt: skip
    for name, options in layouts.items():
        parquet(f"{name}/train.parquet", rows, feats, **options)
        put(f"{name}/extra/one.png", extra[0])
        put(f"{name}/extra/two.png", extra[1])
        card(name, "configs:\n- config_name: default\n  data_files: '*.parquet'")
        case(name, cwd=True)

    # Columns that cannot be null have no definition levels.
    required = pa.schema([
        pa.field("label", pa.int32(), nullable=False),
        pa.field("image", pa.struct([
            pa.field("path", pa.string(), nullable=False), pa.field("bytes", pa.binary(), nullable=False),
        ]), nullable=False),
    ])  # fmt: skip
    parquet("required/train.parquet", examples(12, 3), feats, required, metadata=False, **plain)
    card("required", "dataset_info:\n" + class_label_yaml(names, "  "))
    case("required")

    # Bytes without a struct, names instead of numbers; the card declares what they mean.
    rows = [{"image": png(), "label": text} for text in ["bee", " ant", "2", "cow ", None]]
    parquet("bare/train.parquet", rows, feats, pa.schema([("image", pa.large_binary()), ("label", pa.string())]), metadata=False)
    card("bare", "dataset_info:\n" + class_label_yaml(names, "  "))
    case("bare")

    # Nothing declared: names are class encoded over both splits.
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.string())])
    for split, texts in {"train": ["zebra", "Ant", "bee", "zebra"], "test": ["élan", "bee"]}.items():
        rows = [{"image": {"bytes": png(), "path": None}, "label": text} for text in texts]
        parquet(f"encode/{split}.parquet", rows, feats, schema, metadata=False)
    case("encode", encode=True)

    # Two label columns, as cifar100 has, and other columns besides.
    feats2 = Features({
        "id": datasets.Value("string"), "img": Image(), "fine_label": ClassLabel(names=names),
        "coarse_label": ClassLabel(names=["insect", "mammal"]), "boxes": datasets.List(datasets.Value("float32")),
    })  # fmt: skip
    rows = [{"id": str(i), "img": {"bytes": png(), "path": None}, "fine_label": i % 3, "coarse_label": i % 2, "boxes": [0.5] * i}
            for i in range(9)]  # fmt: skip
    parquet("two-labels/data/train-00000-of-00001.parquet", rows, feats2, compression="none", use_dictionary=False)
    case("two-labels", label="fine_label", image="img", options={"LabelColumn": "fine_label"})
    case("two-labels", label="coarse_label", image="img", options={"LabelColumn": "coarse_label"})

    # Several configurations with a list of dataset_info. The card's names win over those in the files; more than ten
    # names, so that sorting their numbers as texts would show.
    many = [f"n{i}" for i in range(12)]
    for folder in ["one", "two/inner"]:
        for split, count in {"train": 5, "extra.split": 3}.items():
            parquet(f"configs/{folder}/{split}-00000-of-00001.parquet", examples(count, 3), feats)
    entries = "".join(f"- config_name: {c}\n" + class_label_yaml(n, "  ") for c, n in {"one": many, "two": many[::-1]}.items())
    card("configs", f"""dataset_info:
{entries}configs:
- config_name: one
  data_files:
  - split: extra.split
    path: [one/extra*, two/inner/extra*]
  - split: train
    path: one/train-*
- config_name: two
  data_dir: two
  default: true
- config_name: three
  data_files: one/train-00000-of-00001.parquet
- config_name: four
  data_files: [one/train*, one/extra*]
""")
    for config in [None, "one", "two", "three", "four"]:
        case("configs", config=config)

    # Older repositories declare features in dataset_infos.json; a single entry is the default whatever its name.
    parquet("legacy/data/train-00000-of-00001.parquet", examples(4, 3), feats)
    put("legacy/dataset_infos.json", json.dumps({"owner--name": {
        "features": {"image": {"decode": True, "id": None, "_type": "Image"},
                     "label": {"num_classes": 3, "names": ["L0", "L1", "L2"], "id": None, "_type": "ClassLabel"}},
        "splits": {"train": {"name": "train", "num_bytes": 1, "num_examples": 4, "dataset_name": "name"}},
    }}))  # fmt: skip
    case("legacy")

    # The metadata may also stand in .huggingface.yaml, and then overrides the card's.
    parquet("yaml/a.parquet", examples(4, 3), feats)
    parquet("yaml/b.parquet", examples(4, 3), feats)
    card("yaml", "configs:\n- config_name: default\n  data_files: a.parquet")
    put("yaml/.huggingface.yaml", "configs:\n- config_name: default\n  data_files:\n  - split: b\n    path: b.parquet\n")
    case("yaml")


def folder_fixtures() -> None:
    # Folders for splits and classes, between files that do not count.
    for split in ["train", "test"]:
        for label in ["Zebra", "apple", "élan", "bee 1"]:
            for i in range(2):
                put(f"folder/{split}/{label}/{i}.{'png' if i else 'PNG'}", png())
    put("folder/train/.hidden/a.png", png())
    put("folder/train/__special__/a.png", png())
    put("folder/train/bee 1/.DS_Store", "x")
    put("folder/train/bee 1/notes.txt", "x")
    card("folder", "license: mit")
    case("folder")

    # One folder a class and no split.
    for label in ["no", "yes"]:
        for i in range(3):
            put(f"single/{label}/{i}.png", png())
    case("single")

    # Different depths, or one folder only: no labels, unless asked for.
    put("depth/a/1.png", png())
    put("depth/b/c/2.png", png())
    case("depth", label=None, options={"Unlabelled": True})
    for i in range(3):
        put(f"keep-labels/cat/{i}.png", png())
    card("keep-labels", "configs:\n- config_name: default\n  drop_labels: false")
    case("keep-labels")
    for label in ["a", "b"]:
        put(f"drop-labels/{label}/1.png", png())
    card("drop-labels", "configs:\n- config_name: default\n  drop_labels: true\n  drop_metadata: true")
    put("drop-labels/metadata.csv", "file_name\n1.png\n")
    case("drop-labels", label=None, options={"Unlabelled": True})

    # A configuration's features order the class names.
    for label in ["cat", "dog"]:
        put(f"ordered/{label}/1.png", png())
    card("ordered", "configs:\n- config_name: default\n" + class_label_yaml(["dog", "bird", "cat"], "  "))
    case("ordered")

    # A name that fits two patterns of a split is read twice.
    put("twice/train/training/1.png", png())
    put("twice/train/other/1.png", png())
    case("twice")

    # Metadata files: rows in their order, images they do not name left out, missing values.
    for i in range(4):
        put(f"csv/train/{i}.png", png())
        put(f"csv/validation/sub/{i}.png", png())
    put("csv/train/metadata.csv", '\ufefffile_name,label,note\n3.png,wolf,"a, ""b"""\n./1.png,fox,\n0.png,,x\n2.png,NA,x\n')
    put("csv/validation/metadata.csv", "file_name,label,note\nsub/2.png,bear,y\nsub//0.png,fox,z\n")
    case("csv", encode=True)
    for i in range(3):
        put(f"jsonl/{i}.png", png())
    put("jsonl/metadata.jsonl", '{"file_name": "2.png", "label": "b", "box": [1, 2]}\n\n{"label": "a", "file_name": "0.png"}\n'
        '{"file_name": "1.png", "label": null, "box": []}\n')  # fmt: skip
    case("jsonl", encode=True)
    for i in range(3):
        put(f"meta-parquet/pictures/{i}.png", png())
    feats = Features({"photo_file_name": datasets.Value("string"), "kind": ClassLabel(names=["k0", "k1"])})
    parquet("meta-parquet/metadata.parquet", [{"photo_file_name": f"pictures/{i}.png", "kind": i % 2} for i in (2, 0, 1)], feats)
    case("meta-parquet", label="kind", image="photo")

    # Archives: the walk through one lists files before folders.
    members = ["b/1.png", "a.png", "z.png", "b/a/3.png", "c.png", "B/2.png", "__MACOSX/x.png", ".h/x.png", "é.png"]
    pack("zip/train.zip", {name: png() for name in members})
    case("zip", label=None, options={"Unlabelled": True})
    images = {f"{i}.png": png() for i in range(3)}
    pack("zip-metadata/train.zip", {**images, "metadata.csv": "file_name,label\n2.png,a\n0.png,b\n1.png,a\n"}, zipfile.ZIP_STORED)
    case("zip-metadata", encode=True)
    # datasets 5.2 fails on class folders in an archive ("Invalid string class label zip-classes"), against its
    # documentation; the golden rows are those of the same tree unpacked.
    images = {f"{split}/{label}/{i}.png": png() for split in ["train", "test"] for label in ["cat", "dog"] for i in range(2)}
    for split in ["train", "test"]:
        pack(f"zip-classes/{split}.zip", {k.split("/", 1)[1]: v for k, v in images.items() if k.startswith(split)})
    for name, content in images.items():
        put(os.path.join(TEMP, "unpacked", name), content)
    case("zip-classes", read=os.path.join(TEMP, "unpacked"))


def table_fixtures() -> None:
    """Tables that name image files: what the card declares is cast, paths start from the working directory."""
    for i in range(4):
        for kind in ["csv", "json"]:
            put(f"table-{kind}/images/{i}.png", png())
    declared = "dataset_info:\n" + class_label_yaml(["ant", "bee"], "  ") + "configs:\n- config_name: default\n  data_files:\n"
    card("table-csv", declared + "  - split: train\n    path: [train.csv, more.csv.gz]\n  - split: test\n    path: test.csv\n")
    put("table-csv/train.csv", "image,label\nimages/2.png,bee\nimages/0.png,0\nimages/1.png,ant\n")
    put("table-csv/more.csv.gz", gzip.compress(b"image,label\nimages/0.png,1\n", mtime=0))
    put("table-csv/test.csv", "image,label\nimages/3.png,bee\nimages/1.png,\n")
    case("table-csv", cwd=True)
    put("table-tsv/0.png", png())
    card("table-tsv", declared + "  - split: train\n    path: rows.tsv\n")
    put("table-tsv/rows.tsv", "image\tlabel\n0.png\tbee\n./0.png\tant\n")
    case("table-tsv", cwd=True)
    card("table-json", declared + "  - split: train\n    path: train.jsonl\n  - split: test\n    path: test.json\n")
    put("table-json/train.jsonl", '{"image": "images/1.png", "label": 1}\n{"image": "images/0.png", "label": 0}\n')
    put("table-json/test.json", '[{"image": {"path": "images/2.png", "bytes": null}, "label": 1},\n'
        ' {"image": {"path": "images/3.png", "bytes": null}, "label": null}]\n')  # fmt: skip
    case("table-json", cwd=True)


def tar(path: str, members: list[tuple[str, bytes | str]], mode: str = "w", **options) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, **options) as archive:
        for name, content in members:
            content = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    content = bytearray(out.getvalue())
    if content[:2] == b"\x1f\x8b":
        content[4:8] = bytes(4)  # the time
    put(path, bytes(content))


def webdataset_fixtures() -> None:
    def samples(count: int, first: int = 0) -> list[tuple[str, bytes | str]]:
        members = [("./notes", "x"), ("s/.hidden.png", "x"), ("__x__.png", "x")]
        for i in range(first, first + count):
            meta = {"label": ["wolf", "fox"][i % 2], "n": i, "box": [i], "ok": True}
            members += [(f"s.x/{i:03d}.cls", f"{i % 3}\n"), (f"s.x/{i:03d}.png", png()), (f"s.x/{i:03d}.json", json.dumps(meta)),
                        (f"s.x/{i:03d}.kind.txt", ["Ant", "bee"][i % 2])]  # fmt: skip
        return members

    tar("web/train-00.tar", samples(7), format=tarfile.PAX_FORMAT)
    # Later samples may lack members and have others.
    odd = [("t/9.png", png()), ("t/9.extra.bin", b"x"), ("t/10.cls", "1"), ("a-very-long-name/" * 20 + "11.png", png())]
    tar("web/train-01.tar", samples(5, 7) + odd, format=tarfile.GNU_FORMAT)
    tar("web/test-00.tar.gz", samples(5, 20), "w:gz")
    tar("web/validation-00.tar.bz2", samples(6, 30), "w:bz2", format=tarfile.USTAR_FORMAT)
    case("web", label="cls", image="png", encode=True)
    case("web", label="kind.txt", image="png", encode=True, options={"LabelColumn": "kind.txt"})
    case("web", label="json.label", image="png", encode=True, options={"LabelColumn": "json.label"})
    card("web-declared", "dataset_info:\n" + class_label_yaml(["ant", "bee", "cow"], "  ").replace("name: image", "name: jpg").replace("name: label", "name: cls"))
    tar("web-declared/train.tar", [(f"{i}.{ext}", content) for i in range(3) for ext, content in [("jpg", png()), ("cls", str(i))]])
    case("web-declared", label="cls", image="jpg")


# --- answers of single functions ------------------------------------------------------------------------------------


def touch(files: list[str]) -> str:
    root = tempfile.mkdtemp(dir=TEMP)
    for name in files:
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        open(os.path.join(root, name), "w").close()
    return root


TREES = [
    ["README.md", "dataset.csv"], ["train.csv", "test.csv"], ["data/train.csv", "data/test.csv"],
    ["train_0.csv", "train_1.csv", "test_0.csv"], ["data/train/shard_0.csv", "data/test/shard_0.csv"],
    ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/random-00000-of-00001.parquet",
     "data/test-00000-of-00001.parquet"],
    ["data/a-b-00000-of-00001.parquet"], ["data/a.b-00000-of-00001.parquet", "data/a-00000-of-00001-abc.parquet"],
    ["train-00000-of-00001.parquet"], ["my_train_file.parquet", "my_dev_file.parquet"], ["mytrain.parquet", "test.parquet"],
    ["training/a.png", "eval/b.png", "dev/c.png"], ["train/test/a.png"], ["a train/x.png", "b.test/x.png"],
    ["a/train1/x.png", "a/1test/x.png", "a/testing_set/x.png"], ["trains/x.png"], ["Train/x.png", "TEST/x.png"],
    ["train/x.png", "test.png"], ["train/metadata.csv", "train/a.png"], ["a.png", "b.png", "metadata.csv", "metadata.jsonl"],
    ["a.parquet", "b.csv"], ["a.csv", "b.json", "c.txt"], ["a.jpg", "b.png", "c.png", "d.jpeg"], ["a.JPG", "b.Jpg"],
    ["a.png", "notes.txt", "more.txt"], [".hidden/train.png", "x.png"], ["__pycache__/a.png", "b.png"],
    ["validation/1.png", "val/2.png", "valid/3.png"], ["data.tar", "x.png", "y.png"], ["config.json", "dummy_data.zip", "a.png"],
    ["train/cat/1.png", "train/dog/1.png", "valid/cat/1.png"], ["cat/train.png", "dog/test.png"],
    ["a.tar.gz", "b.tar.gz", "c.png"], ["sub/data/train-00000-of-00001.parquet"],
    ["data/train-00000-of-00001.parquet", "data/other.parquet"], ["evaluation-1.png", "testing 2.png", "train.png"],
    ["dev.jpg", "0train0.jpg"], ["test"], ["train", "a.png"], ["train.zipped.png"],
]  # fmt: skip

PARTS = ["train", "test", "val", "data", "a", "b", "train-1", "my_test", "x.train", "devs", "2eval", ".git", "__x__", "validation"]
ENDS = ["png", "jpg", "PNG", "parquet", "csv", "txt", "jsonl", "md"]


def random_tree(rng: random.Random) -> list[str]:
    return sorted({
        "/".join(rng.choices(PARTS, k=rng.randint(0, 2)) + [rng.choice(PARTS) + "." + rng.choice(ENDS[: rng.randint(1, 8)])])
        for _ in range(rng.randint(1, 7))
    })  # fmt: skip


def file_answers() -> list[dict]:
    rng = random.Random(1)
    answers = []
    for files in TREES + [random_tree(rng) for _ in range(300)]:
        root = touch(files)
        answer = {"files": files}
        try:
            patterns = get_data_patterns(root)
            found = DataFilesDict.from_patterns(patterns, base_path=root, allowed_extensions=_ALL_ALLOWED_EXTENSIONS)
            module, _ = infer_module_for_data_files(found)
            found = found.filter(extensions=_MODULE_TO_EXTENSIONS[module], file_names=_MODULE_TO_METADATA_FILE_NAMES[module])
            answer["kind"] = module
            answer["splits"] = [[str(s), [os.path.relpath(f, root) for f in fs]] for s, fs in found.items()]
        except (ValueError, FileNotFoundError) as e:
            answer["error"] = f"{type(e).__name__}: {e}".replace(root, "ROOT")[:100]
        answers.append(answer)
        shutil.rmtree(root)
    return answers


def glob_answers() -> list[dict]:
    files = [
        "a.png", "b.jpg", "train.csv", "data/train-1.csv", "data/train_2.csv", "data/deep/x/train 3.csv", "data/[odd].png",
        "data/{a,b}.png", ".hidden/a.png", "data/.secret.png", "__x__/a.png", "data/__y__/b.png", "data/c^.png", "data/d!.png",
        "data/é.png", "README.md", "data/config.json", "data/a+b(c).png", "data/deep/a.png", "A.PNG", "data/e\\f.png", "data/-.png",
    ]  # fmt: skip
    patterns = [
        "*", "**", "**/*", "*.png", "**/*.png", "**.png", "data/*", "data/**", "data/*/*", "data/?.png", "data/[a-e]*.png",
        "data/[!a-e]*.png", "data/[[]odd].png", "data/{a,b}.png", "data/[.png", "**/train[-._ 0-9]*", "**/*[-._ 0-9]3*", ".hidden/*",
        "**/.hidden/*", "data/.*", "__x__/*", "**/__*/*", "**/README.md", "**/*.md", "data/[^c]*.png", "data/c[^]*", "data/c[!^].png",
        "data/d[!].png", "data/[é].png", "data/a+b(c).png", "data/**/a.png", "**/a.png", "data/deep", "data/", "data/[e\\]*", "[ab].*",
        "data/[]-]*", "data/[!]-]*", "data/[z-a]*", "data/[a\\-z]*", "data/config.json", "**/config.json", "**/data/**", "*/*/*", "?.png",
        "data/[--.]*", "data/[a-c-e]*",
    ]  # fmt: skip
    root = touch(files)
    answers = []
    for pattern in patterns:
        try:
            matched = [os.path.relpath(f, root) for f in resolve_pattern(pattern, root)]
            answers.append({"pattern": pattern, "files": matched})
        except FileNotFoundError:
            answers.append({"pattern": pattern, "files": []})
        except ValueError as e:
            answers.append({"pattern": pattern, "error": str(e)})
    return [{"tree": sorted(files), "answers": answers}]


def slice_answers() -> list[dict]:
    sizes = {"train": 1437, "test": 360, "small": 7, "a.b": 250, "empty": 0}
    expressions = [
        "train", "train[:5000]", "train[:100]", "train[10%:20%]", "train[-100:]", "train[:-100]", "train[5:3]", "train[:50%]+test[:5]",
        "test + train[-1%:]", "small[:50%]", "small[50%:]", "small[:7%]", "small[:36%]", "a.b[1%:99%]", "train[:]", "train[-5000:10]",
        "train[:10%](closest)", "train[:10%](pct1_dropremainder)", "train[33%:66%](pct1_dropremainder)", "small[:5%](pct1_dropremainder)",
        "a.b[:1%]", "a.b[:3%]", "a.b[:5%]", "a.b[1%:]", "a.b[-1%:]", "a.b[-3%:-1%]", "train[10:20%]", "train[10%:200]", "train[:101%]",
        "train[:-101%]", "train[0:10](closest)", "train[:10](pct1_dropremainder)", "train[:10%](nearest)", "train[:10%]()", "train(closest)",
        "train[1_0:2_0]", "train[1.5:]", "train[5]", "train[a:]", "train[", "tra-in", "", "nope", "nope[:5]", "train+nope", "train[:5]+",
        "+train", "train [:5]", "train[ :5]", "train[:10%](closest)+test[:10%](pct1_dropremainder)", "train[:10]+test[:10%](pct1_dropremainder)",
        "train[:10%]+test+a.b[:10%](pct1_dropremainder)", "train[:-0]", "train[-0:]", "train[100%:]", "train[:0%]", "train[99%:100%]",
        "train[--5:]", "train[:5:2]", "test\t+\ttrain", "small[0:99]", "small[3:5]+small[3:5]", "empty", "train+empty",
    ]  # fmt: skip
    expressions += [f"train[{a}%:{b}%]" for a in range(0, 100, 9) for b in range(a, 101, 13)]
    expressions += [f"a.b[{a}%:]" for a in range(-100, 101, 7)]
    answers = []
    for text in expressions:
        try:
            parts = ReadInstruction.from_spec(text).to_absolute(sizes)
            answers.append({"text": text, "parts": [[p.splitname, p.from_, p.to] for p in parts]})
        except (ValueError, AssertionError) as e:
            answers.append({"text": text, "error": str(e)[:100]})
    return [{"sizes": sizes, "answers": answers}]


def shuffle_answers() -> dict:
    def digest(values) -> str:
        return hashlib.md5("".join(f"{v}\n" for v in values).encode()).hexdigest()

    permutations = []
    for seed in [0, 1, 42, 2**31, 2**32 - 1, 2**32, 2**32 + 5, 2**63, 2**64 - 1]:
        for n in [1, 2, 3, 10, 257, 5000, 70000]:
            order = np.random.default_rng(seed).permutation(n).tolist()
            permutations.append({"seed": str(seed), "n": n, "first": order[:10], "md5": digest(order)})
    splits = []
    for n in [2, 3, 10, 101, 1437]:
        whole = Dataset.from_dict({"i": list(range(n))})
        for size in [0.1, 0.25, 0.3, 0.07, 0.5, 0.999, 1e-9, 1, 2, 9, 100, 1436, 1437, 0.0, 1.0, 1.5, -1, -0.1]:
            for seed in [0, 42]:
                answer = {"n": n, "size": size, "seed": seed, "whole": isinstance(size, int)}
                try:
                    both = whole.train_test_split(test_size=size, seed=seed)
                    answer.update(train=digest(both["train"]["i"]), test=digest(both["test"]["i"]), tests=len(both["test"]))
                except ValueError as e:
                    answer["error"] = str(e)[:80]
                splits.append(answer)
    return {"permutations": permutations, "splits": splits}


def put_answers(name: str, entries: list) -> None:
    put(name, "[\n" + ",\n".join(json.dumps(e, ensure_ascii=False) for e in entries) + "\n]\n")


def write_cases() -> None:
    put_answers("rows.json", CASES)


def main() -> None:
    for entry in os.listdir(HERE):
        if os.path.isdir(os.path.join(HERE, entry)) and entry != "fuzz":
            shutil.rmtree(os.path.join(HERE, entry))
    parquet_fixtures()
    folder_fixtures()
    table_fixtures()
    webdataset_fixtures()
    write_cases()
    put_answers("files.json", file_answers())
    put_answers("globs.json", glob_answers())
    put_answers("slices.json", slice_answers())
    put_answers("shuffles.json", [shuffle_answers()])
    shutil.rmtree(TEMP)


if __name__ == "__main__":
    main()
