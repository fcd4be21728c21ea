"""Writes the golden files of package format with the real Python libraries.

    python make.py          # safetensors 0.8.0, peft 0.21.2, transformers 5.23.0

written/   files that safetensors and transformers wrote
configs/   adapter_config.json of real adapters, one per method and variant
hostile/   headers with one defect each, named after it
rust.json  what the reference implementation says about every hostile file
"""

import ctypes
import json
import os
import shutil
import struct
import sys
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":  # PEFT writes target_modules in the order of a set
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})

import peft
import safetensors
import torch
import transformers
from safetensors import TensorSpec

here = Path(__file__).parent


def fresh(name):
    folder = here / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


# ---- files as Python writes them ----------------------------------------------------------------

DTYPES = [  # name, elements that TensorSpec wants, bytes
    ("bool", 2, 2), ("float4_e2m1fn_x2", 2, 2), ("uint8", 3, 3), ("int8", 3, 3), ("float8_e5m2", 2, 2),
    ("float8_e4m3fn", 2, 2), ("float8_e8m0fnu", 2, 2), ("float8_e4m3fnuz", 2, 2), ("float8_e5m2fnuz", 2, 2),
    ("int16", 1, 2), ("uint16", 1, 2), ("float16", 3, 6), ("bfloat16", 3, 6), ("int32", 1, 4), ("uint32", 1, 4),
    ("float32", 3, 12), ("complex64", 1, 8), ("float64", 3, 24), ("int64", 1, 8), ("uint64", 1, 8),
]


def serialize(tensors, metadata=None):
    """tensors: (name, dtype, shape, bytes)"""
    keep = [ctypes.create_string_buffer(t[3], max(len(t[3]), 1)) for t in tensors]
    return safetensors.serialize(
        {n: TensorSpec(dtype=d, shape=s, data_ptr=ctypes.addressof(k), data_len=len(b))
         for (n, d, s, b), k in zip(tensors, keep)}, metadata=metadata)


def write_written():
    out = fresh("written")
    one = [("w", "float32", [2, 3], bytes(range(24)))]
    (out / "one.safetensors").write_bytes(serialize(one, {"format": "pt"}))
    (out / "no-metadata.safetensors").write_bytes(serialize(one))
    (out / "empty-metadata.safetensors").write_bytes(serialize(one, {}))
    (out / "no-tensors.safetensors").write_bytes(serialize([]))
    (out / "all-dtypes.safetensors").write_bytes(serialize(
        [(f"{i % 3}.{d}", d, [n], bytes((i + j) % 256 for j in range(b))) for i, (d, n, b) in enumerate(DTYPES)], {"format": "pt"}))
    odd = ["", " ", "A", "_", "__metadata", "zz", "a.b", "a\"b", "a\\b", "a/b", "<&>", "\u2028", "é", "e\u0301", "漢字", "\U0001f600",
           "tab\t", "nl\n", "cr\r", "bs\b", "ff\f", "nul\0", "esc\x1b", "del\x7f"]
    (out / "odd-names.safetensors").write_bytes(serialize([(n, "uint8", [1], bytes([i])) for i, n in enumerate(odd)], {"ключ \"<\x01": "\\ \U0001f600\n"}))
    (out / "odd-shapes.safetensors").write_bytes(serialize(
        [("scalar", "float32", [], bytes(4)), ("empty", "float32", [0], b""), ("empty2", "float32", [3, 0, 5], b""),
         ("long", "uint8", [1] * 20 + [2], bytes(2)), ("row", "int64", [1, 2], bytes(16))], {"format": "pt"}))

    torch.manual_seed(0)
    config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
                                    id2label={i: s for i, s in enumerate(["ноль", "one", "two & <three>", "\U0001f600", *"fghijklm"])})
    config.label2id = {v: k for k, v in config.id2label.items()}
    model = transformers.ViTForImageClassification(config)
    model.save_pretrained(out / "sharded", max_shard_size="4KB")
    transformers.ViTImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.5, 0.25, 0.125], image_std=[1 / 3, 0.1, 1e-5]).save_pretrained(out / "sharded")
    floats = {"f16": torch.tensor([0.0, -0.0, 1.0, -2.5, 65504.0, 6e-8, 5.96e-8, 6.1e-5, float("inf"), float("-inf")], dtype=torch.float16),
              "bf16": torch.tensor([0.0, -0.0, 1.0, -2.5, 3e38, 1e-40, float("inf")], dtype=torch.bfloat16),
              "f64": torch.tensor([0.1, 1e-50, 1e300, -1 / 3], dtype=torch.float64)}
    safetensors.torch.save_file({**floats, **{k + ".f32": v.float() for k, v in floats.items()}}, out / "floats.safetensors")


# ---- adapter_config.json ------------------------------------------------------------------------


def write_configs():
    out = fresh("configs")
    shape = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4, num_labels=3)

    def save(name, config, train=lambda m: None):
        torch.manual_seed(0)
        base = transformers.ViTForImageClassification(transformers.ViTConfig(**shape))
        model = peft.get_peft_model(base, config)
        train(model)
        model.save_pretrained(out / name)
        (out / name / "adapter_config.json").rename(out / f"{name}.json")
        shutil.rmtree(out / name)

    both = dict(target_modules=["q_proj", "v_proj"], modules_to_save=["classifier"])
    save("lora", peft.LoraConfig(r=16, lora_alpha=16, lora_dropout=0.1, bias="none", **both))
    save("dora", peft.LoraConfig(r=4, lora_alpha=2.5, use_dora=True, use_rslora=True, init_lora_weights="gaussian", revision="v1.0", **both))
    save("lora-all-linear", peft.LoraConfig(r=2, target_modules="all-linear", exclude_modules=["fc1"]))
    save("lora-regex", peft.LoraConfig(r=2, target_modules=r".*\.attention\.(q|v)_proj", exclude_modules=r".*layers\.0\..*"))
    save("lora-layers", peft.LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=1, layers_pattern="layers"))
    save("lora-layer-list", peft.LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[0, 1], layers_pattern=["layers"]))
    save("lora-patterns", peft.LoraConfig(r=2, target_modules=["q_proj", "fc1"], lora_dropout=1e-05,
                                          rank_pattern={"q_proj": 4, r"^vit.layers.0.mlp.fc1": 8, "ünused": 1}, alpha_pattern={"q_proj": 16, "fc1": 0.5}))
    save("loha", peft.LoHaConfig(r=16, alpha=16, module_dropout=0.1, **both))
    save("lokr", peft.LoKrConfig(r=16, alpha=16, module_dropout=0.1, decompose_both=True, **both))
    save("adalora", peft.AdaLoraConfig(init_r=12, target_r=8, tinit=200, tfinal=1000, deltaT=10, total_step=3000, **both))

    def prune(model):
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.data.normal_()  # E starts as zero: all scores would tie, and everything be pruned
        for i in range(1, 4):
            model(pixel_values=torch.randn(2, 3, 8, 8), labels=torch.tensor([0, 1])).loss.backward()
            model.base_model.update_and_allocate(i)
            model.zero_grad()

    save("adalora-masks", peft.AdaLoraConfig(init_r=3, target_r=1, tinit=0, tfinal=1, deltaT=1, total_step=4, **both), prune)
    save("ia3", peft.IA3Config(target_modules=["q_proj", "fc2"], feedforward_modules=["fc2"], modules_to_save=["classifier"]))
    save("oft", peft.OFTConfig(oft_block_size=4, **both))
    save("hra", peft.HRAConfig(r=4, **both))
    save("ln_tuning", peft.LNTuningConfig(target_modules=["layernorm"]))


# ---- hostile headers ----------------------------------------------------------------------------


def t(dtype="U8", shape="[1]", offsets="[0,1]"):
    return f'{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


def header(text, data=0, length=None):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + bytes(data)


HOSTILE = {
    # the frame
    "empty-file": b"",
    "seven-bytes": bytes(7),
    "length-zero": header(""),
    "length-2-63": header("{}", 0, 2**63),
    "length-max": header("{}", 0, 2**64 - 1),
    "length-over-100MB": header("{}", 0, 100_000_001),
    "length-beyond-file": header("{}", 0, 3),
    "pickle": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    "zip": b"PK\x03\x04" + bytes(40),
    "git-lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    # the text
    "json-null": header("null"),
    "json-array": header("[]"),
    "json-string": header('"{}"'),
    "byte-order-mark": header("\ufeff{}"),
    "leading-space": header(" {}"),
    "leading-newline": header("\n{}"),
    "padded-with-nul": header(b"{}\0\0\0\0\0\0"),
    "padded-with-tab": header("{}\t"),
    "padded-with-newline": header("{}\n"),
    "two-values": header("{}{}"),
    "unterminated-object": header("{"),
    "unterminated-string": header('{"a'),
    "trailing-comma": header('{"a":' + t() + ",}", 1),
    "comment": header("{/**/}"),
    "single-quotes": header("{'a':1}"),
    "control-character-in-name": header(b'{"a\x01":' + t().encode() + b"}", 1),
    "deep-nesting": header('{"a":' + "[" * 5000 + "]" * 5000 + "}"),
    "invalid-utf8-name": header(b'{"\xff":' + t().encode() + b"}", 1),
    "invalid-utf8-twins": header(b'{"\xff":' + t("U8", "[0]", "[0,0]").encode() + b',"\xfe":' + t("U8", "[0]", "[0,0]").encode() + b"}"),
    "overlong-utf8": header(b'{"\xc0\xaf":' + t().encode() + b"}", 1),
    "lone-high-surrogate": header('{"\\ud800":' + t() + "}", 1),
    "lone-low-surrogate": header('{"\\udc00":' + t() + "}", 1),
    "reversed-surrogates": header('{"\\udc00\\ud800":' + t() + "}", 1),
    "bad-escape": header('{"\\x41":' + t() + "}", 1),
    "short-unicode-escape": header('{"\\u41":' + t() + "}", 1),
    # one entry
    "entry-not-object": header('{"a":1}'),
    "entry-null": header('{"a":null}'),
    "missing-dtype": header('{"a":{"shape":[1],"data_offsets":[0,1]}}', 1),
    "missing-shape": header('{"a":{"dtype":"U8","data_offsets":[0,1]}}', 1),
    "missing-offsets": header('{"a":{"dtype":"U8","shape":[1]}}', 1),
    "extra-field": header('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":1}}', 1),
    "dtype-twice": header('{"a":{"dtype":"F64","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', 1),
    "shape-twice": header('{"a":{"dtype":"U8","shape":[9],"shape":[1],"data_offsets":[0,1]}}', 1),
    "offsets-twice": header('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,9],"data_offsets":[0,1]}}', 1),
    "unknown-dtype": header('{"a":' + t("X9") + "}", 1),
    "lower-case-dtype": header('{"a":' + t("u8") + "}", 1),
    "dtype-number": header('{"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}}', 1),
    "shape-null": header('{"a":' + t("U8", "null") + "}", 1),
    "shape-string": header('{"a":' + t("U8", '["1"]') + "}", 1),
    "negative-dimension": header('{"a":' + t("U8", "[-1]") + "}", 1),
    "minus-zero-dimension": header('{"a":' + t("U8", "[-0]", "[0,0]") + "}"),
    "fraction-dimension": header('{"a":' + t("U8", "[1.0]") + "}", 1),
    "exponent-dimension": header('{"a":' + t("U8", "[1e0]") + "}", 1),
    "leading-zero-dimension": header('{"a":' + t("U8", "[01]") + "}", 1),
    "dimension-2-64": header('{"a":' + t("U8", "[18446744073709551616]") + "}", 1),
    "product-overflow-to-zero": header('{"a":' + t("U8", "[4294967296,4294967296]", "[0,0]") + "}"),
    "product-overflow-to-one": header('{"a":' + t("U8", "[6148914691236517205,3]", "[0,1]") + "}", 1),
    "bytes-overflow": header('{"a":' + t("F64", "[2305843009213693952]", "[0,0]") + "}"),
    "sub-byte-remainder": header('{"a":' + t("F4", "[3]", "[0,2]") + "}", 2),
    "one-offset": header('{"a":' + t("U8", "[1]", "[0]") + "}", 1),
    "three-offsets": header('{"a":' + t("U8", "[1]", "[0,1,1]") + "}", 1),
    "negative-offset": header('{"a":' + t("U8", "[1]", "[-1,0]") + "}", 1),
    "end-before-begin": header('{"a":' + t("U8", "[1]", "[1,0]") + "}", 1),
    "size-too-small": header('{"a":' + t("F32", "[2]", "[0,4]") + "}", 4),
    "size-too-large": header('{"a":' + t("U8", "[1]", "[0,4]") + "}", 4),
    # several entries
    "hole-at-start": header('{"a":' + t("U8", "[1]", "[1,2]") + "}", 2),
    "hole-in-the-middle": header('{"a":' + t() + ',"b":' + t("U8", "[1]", "[2,3]") + "}", 3),
    "hole-at-end": header('{"a":' + t() + "}", 2),
    "overlap": header('{"a":' + t("U8", "[2]", "[0,2]") + ',"b":' + t("U8", "[2]", "[1,3]") + "}", 3),
    "same-range-twice": header('{"a":' + t("U8", "[2]", "[0,2]") + ',"b":' + t("U8", "[2]", "[0,2]") + "}", 2),
    "data-truncated": header('{"a":' + t("U8", "[2]", "[0,2]") + "}", 1),
    "data-without-tensors": header("{}", 1),
    "same-name-twice": header('{"a":' + t() + ',"a":' + t("U8", "[1]", "[1,2]") + "}", 2),
    "same-name-twice-escaped": header('{"a":' + t() + ',"\\u0061":' + t("U8", "[1]", "[1,2]") + "}", 2),
    "same-name-twice-empty": header('{"a":' + t("U8", "[0]", "[0,0]") + ',"a":' + t("F32", "[0]", "[0,0]") + "}"),
    # metadata
    "metadata-twice": header('{"__metadata__":{"a":"b"},"__metadata__":{}}'),
    "metadata-key-twice": header('{"__metadata__":{"a":"b","a":"c"}}'),
    "metadata-null": header('{"__metadata__":null}'),
    "metadata-number": header('{"__metadata__":{"a":1}}'),
    "metadata-is-tensor": header('{"__metadata__":' + t() + "}", 1),
    # sound, if unusual: these must be read
    "ok-empty": header("{}"),
    "ok-spaces": header("{}      "),
    "ok-unaligned-header": header('{"a":' + t() + "}", 1),
    "ok-misaligned-tensor": header('{"a":' + t() + ',"b":' + t("F32", "[1]", "[1,5]") + "}", 5),
    "ok-inner-whitespace": header('{ "a" :\n\t{"shape":[ 1 ],"data_offsets":[0, 1],"dtype":"U8"} }', 1),
    "ok-any-order": header('{"b":' + t("U8", "[1]", "[1,2]") + ',"__metadata__":{},"a":' + t() + "}", 2),
    "ok-empty-name": header('{"":' + t() + "}", 1),
    "ok-escaped-name": header('{"\\u00e9\\ud83d\\ude00\\/\\b":' + t() + "}", 1),
    "ok-scalar": header('{"a":' + t("F32", "[]", "[0,4]") + "}", 4),
    "ok-zero-size": header('{"c":' + t("F32", "[0]", "[0,0]") + ',"a":' + t("U8", "[0,7]", "[0,0]") + ',"b":' + t("U8", "[7,0]", "[0,0]") + "}"),
    "ok-zero-times-huge": header('{"a":' + t("U8", "[0,4611686018427387904,4611686018427387904]", "[0,0]") + "}"),
    "ok-sub-byte": header('{"a":' + t("F4", "[2]") + ',"b":' + t("F6_E2M3", "[4]", "[1,4]") + ',"c":' + t("F6_E3M2", "[2,2]", "[4,7]") + "}", 7),
}


def write_hostile():
    out = fresh("hostile")
    verdicts = {}
    for name, raw in HOSTILE.items():
        (out / f"{name}.safetensors").write_bytes(raw)
        try:
            safetensors.deserialize(raw)
            verdicts[name] = "accepted"
        except Exception as e:
            verdicts[name] = str(e).replace(chr(0), "\\0")[:100]
    (here / "rust.json").write_text(json.dumps(verdicts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    write_written()
    write_configs()
    write_hostile()
