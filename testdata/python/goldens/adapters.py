"""Adapters made by PEFT on the tiny bases: files as save_pretrained writes them, logits, and what merging changes."""

import hashlib
import json
import pathlib
import shutil
import tempfile

import torch
from peft import AdaLoraConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import ViTForImageClassification

from . import bases, common

QV = ["q_proj", "v_proj"]
HEAD = ["classifier"]


def lora(**changes) -> LoraConfig:
    return LoraConfig(**{**dict(r=4, lora_alpha=6, target_modules=QV, modules_to_save=HEAD), **changes})


def adalora(**changes) -> AdaLoraConfig:
    schedule = dict(init_r=6, target_r=3, tinit=1, tfinal=2, deltaT=1, total_step=8)
    return AdaLoraConfig(**{**dict(target_modules=QV, modules_to_save=HEAD), **schedule, **changes})


# folder -> (base, config). Every parameter is random: an untrained adapter would hide a formula that is never applied.
CASES = {
    "lora/query-value": ("vit", lora(modules_to_save=None)),
    "lora/classifier": ("vit", lora()),
    "lora/rank12": ("vit", lora(r=12, lora_alpha=32)),
    "lora/rslora": ("vit", lora(r=3, lora_alpha=5, use_rslora=True)),
    "lora/patterns": (
        "vit",
        lora(rank_pattern={"layers.0.attention.q_proj": 2, r"^vit\.layers\.1\..*v_proj": 7},
             alpha_pattern={"v_proj": 3, "layers.1.attention.q_proj": 9}),
    ),
    "lora/bias-all": ("vit", lora(bias="all")),
    "lora/bias-lora-only": ("vit", lora(bias="lora_only")),
    "lora/regex": ("vit", lora(target_modules=r".*\.1\.(attention\.(k|o)_proj|mlp\.fc[12])")),
    "lora/all-linear": ("vit", lora(target_modules="all-linear", modules_to_save=None, r=2)),
    "lora/all-linear-classifier": ("vit", lora(target_modules="all-linear", r=2)),
    "lora/exclude": ("vit", lora(target_modules=["q_proj", "fc1"], exclude_modules=["layers.0.attention.q_proj"])),
    "lora/layers": ("vit", lora(layers_to_transform=[1])),
    "lora/layers-pattern": ("vit", lora(layers_to_transform=0, layers_pattern="layers")),
    "lora/lora-bias": ("vit", lora(lora_bias=True)),
    "lora/dropout": ("vit", lora(lora_dropout=0.1, init_lora_weights="gaussian")),
    "lora/oblong": ("oblong", lora(r=5)),
    "lora/nobias": ("nobias", lora(r=2, target_modules=["q_proj", "k_proj", "o_proj"])),
    "lora/bare": ("bare", lora()),
    "lora/bare-bf16": ("bare-bf16", lora(r=12, lora_alpha=32)),
    "lora/bf16": ("vit-bf16", lora(r=12, lora_alpha=32)),
    "lora/f16": ("vit-f16", lora(r=12, lora_alpha=32)),
    "lora/sharded": ("vit-sharded", lora()),
    "lora/conv2d": ("vit", lora(target_modules=["q_proj", "projection"], modules_to_save=None)),
    "lora/pissa": ("vit", lora(init_lora_weights="pissa", modules_to_save=None)),
    "lora/olora": ("vit", lora(init_lora_weights="olora", modules_to_save=None)),
    "dora/classifier": ("vit", lora(use_dora=True)),
    "dora/bf16": ("vit-bf16", lora(use_dora=True)),
    "dora/conv2d": ("vit", lora(use_dora=True, target_modules=["v_proj", "projection"], modules_to_save=None)),
    "dora/nobias": ("nobias", lora(r=2, use_dora=True, use_rslora=True, lora_dropout=0.1, target_modules=["q_proj", "fc2"])),
    "loha/classifier": ("vit", LoHaConfig(r=3, alpha=5, target_modules=QV, modules_to_save=HEAD)),
    "loha/patterns": (
        "vit",
        LoHaConfig(r=3, alpha=5, target_modules=QV, rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 4}),
    ),
    "loha/bf16": ("vit-bf16", LoHaConfig(r=3, alpha=5, target_modules=QV, modules_to_save=HEAD)),
    "loha/conv2d": ("vit", LoHaConfig(r=2, alpha=3, target_modules=["projection"])),
    "loha/conv2d-effective": ("vit", LoHaConfig(r=2, alpha=3, target_modules=["projection"], use_effective_conv2d=True)),
    # 32 = 4 x 8: with r=4 both factors are whole, with r=3 the second is a product.
    "lokr/whole": ("vit", LoKrConfig(r=4, alpha=6, target_modules=QV, modules_to_save=HEAD)),
    "lokr/low-rank": ("vit", LoKrConfig(r=3, alpha=5, target_modules=["q_proj", "fc1"], modules_to_save=HEAD)),
    "lokr/both": ("vit", LoKrConfig(r=1, alpha=2, target_modules=QV, decompose_both=True)),
    "lokr/factor": ("vit", LoKrConfig(r=3, alpha=5, target_modules=["fc1", "v_proj"], decompose_factor=16)),
    "lokr/bf16": ("vit-bf16", LoKrConfig(r=3, alpha=5, target_modules=QV, modules_to_save=HEAD)),
    "lokr/conv2d": ("vit", LoKrConfig(r=2, alpha=3, target_modules=["projection"])),
    "lokr/conv2d-effective": ("vit", LoKrConfig(r=2, alpha=3, target_modules=["projection"], use_effective_conv2d=True)),
    "lokr/conv2d-both": (
        "vit",
        LoKrConfig(r=1, alpha=3, target_modules=["projection"], decompose_both=True, use_effective_conv2d=True),
    ),
    "adalora/whole": ("vit", adalora()),
    "adalora/pruned": ("vit", adalora()),
    "adalora/bf16": ("vit-bf16", adalora()),
    "adalora/conv2d": ("vit", adalora(target_modules=["projection", "fc2"], lora_alpha=0, init_r=3, bias="lora_only")),
    "ia3/conv2d": ("vit", IA3Config(target_modules=["projection", "q_proj"], feedforward_modules=[])),
    "ia3/conv2d-feedforward": ("vit", IA3Config(target_modules=".*(projection|fc1)", feedforward_modules=".*projection")),
    "ia3/key-value": ("vit", IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[], modules_to_save=HEAD)),
    "ia3/feedforward": ("vit", IA3Config(target_modules=["k_proj", "v_proj", "fc2"], feedforward_modules=["fc2"])),
    "ia3/bf16": ("vit-bf16", IA3Config(target_modules=["k_proj", "fc2"], feedforward_modules=["fc2"], modules_to_save=HEAD)),
}  # fmt: skip

# Ranks that AdaLoRA's budget has taken away, down to none at all in one module.
PRUNED = {
    "vit.layers.0.attention.q_proj": [True, False, True, True, False, True],
    "vit.layers.0.attention.v_proj": [False] * 6,
    "vit.layers.1.attention.q_proj": [True] * 6,
    "vit.layers.1.attention.v_proj": [False, False, False, False, False, True],
}


def open_base(root: pathlib.Path, name: str, **kwargs):
    """The classifier on a base; a bare one gets a head of as many classes, as PEFT's guide does."""
    folder = root / "bases" / name
    if name.startswith("bare"):
        kwargs.update(id2label=dict(enumerate(bases.LABELS)), label2id={label: i for i, label in enumerate(bases.LABELS)})
    torch.manual_seed(0)
    model = ViTForImageClassification.from_pretrained(folder, **kwargs)
    # Goldens must not hold the path of the machine that made them.
    model.name_or_path = model.config._name_or_path = f"hubtool-test/{name}"
    return model.eval()


def trained(model: PeftModel):
    """(name, parameter) of what save_pretrained writes, biases that `bias=` trains included.

    On a half-precision base PEFT's cast to float32 makes AdaLoRA's constant `ranknum` trainable; it is still not saved.
    """
    return [(n.replace(".default", ""), p) for n, p in model.named_parameters() if p.requires_grad and "ranknum" not in n]


def make(root: pathlib.Path, name: str) -> None:
    base, config = CASES[name]
    folder = root / name
    model = get_peft_model(open_base(root, base), config)
    common.fill(name, trained(model))
    trainable, everything = model.get_nb_trainable_parameters()
    modules = sorted(model.base_model.targeted_module_names)
    if name == "adalora/pruned":
        model.peft_config["default"].rank_pattern = {f"{m}.lora_E.default": mask for m, mask in PRUNED.items()}
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    describe(root, folder, base, modules=modules, trainable_parameters=trainable, all_parameters=everything)


def describe(root: pathlib.Path, folder: pathlib.Path, base: str, **facts) -> None:
    """Write logits, merged tensors and case.json of the adapter in `folder`, all from the saved files."""
    adapted = PeftModel.from_pretrained(open_base(root, base, dtype=torch.float32), folder).eval()
    pixels = bases.batch_of(adapted.config)
    common.save(folder / "logits.safetensors", **bases.answers(adapted, pixels))

    facts["base"] = base
    plain, facts["merged"] = merged(root, folder, base, safe=False)
    common.save(folder / "merged.safetensors", **plain)
    if base.endswith("16"):  # in float32 both ways of merging give the same bits
        safe, facts["merged_safe"] = merged(root, folder, base, safe=True)
        if any(not torch.equal(safe[n], plain[n]) for n in safe):
            common.save(folder / "merged-safe.safetensors", **safe)
    common.save_json(folder / "case.json", facts)


def merged(root: pathlib.Path, folder: pathlib.Path, base: str, safe: bool):
    """Tensors of the merged checkpoint that the base does not hold with these bits, and facts about the whole files."""
    model = PeftModel.from_pretrained(open_base(root, base), folder).merge_and_unload(safe_merge=safe)
    before = {}
    for shard in (root / "bases" / base).glob("model*.safetensors"):
        before.update(common.load(shard))
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch)
        model.save_pretrained(out, max_shard_size="30KB" if base == "vit-sharded" else "5GB")
        files, after = {}, {}
        for shard in sorted(out.glob("*.safetensors")):
            files[shard.name] = hashlib.sha256(shard.read_bytes()).hexdigest()
            after.update(common.load(shard))
        if folder.name in ("bare", "classifier"):
            shutil.copy(out / "config.json", folder / "merged_config.json")

    def same(name, tensor):
        old = before.get(name, before.get(name.removeprefix("vit.")))
        return old is not None and old.dtype == tensor.dtype and torch.equal(old, tensor)

    changed = {name: t for name, t in after.items() if not same(name, t)}
    return changed, {"tensors": len(after), "changed": len(changed), "sha256": files}


def respell(root: pathlib.Path, source: str, target: str, config_edit, tensors_edit) -> None:
    """A copy of an adapter as another version of PEFT, or another program, would have written it."""
    shutil.copytree(root / source, root / target)
    path = root / target / "adapter_config.json"
    config = json.loads(path.read_text())
    config_edit(config)
    path.write_text(json.dumps(config, indent=2, sort_keys=True))
    tensors = tensors_edit(common.load(root / target / "adapter_model.safetensors"))
    save_file(tensors, root / target / "adapter_model.safetensors", metadata={"format": "pt"})


CLASSIC = {"q_proj": "query", "v_proj": "value"}


def classic_name(name: str) -> str:
    name = name.replace("vit.layers.", "vit.encoder.layer.")
    for v5, classic in CLASSIC.items():
        name = name.replace(f"attention.{v5}", f"attention.attention.{classic}")
    return name


def classic_config(config: dict) -> None:
    config["target_modules"] = sorted(CLASSIC[t] for t in config["target_modules"])


def both_config(config: dict) -> None:
    config["target_modules"] = sorted([*CLASSIC, *CLASSIC.values()])


def old_config(config: dict) -> None:
    """What PEFT 0.4 to 0.6 knew."""
    keep = """auto_mapping base_model_name_or_path bias fan_in_fan_out inference_mode init_lora_weights layers_pattern
        layers_to_transform lora_alpha lora_dropout modules_to_save peft_type r revision target_modules task_type""".split()
    for key in config.keys() - set(keep):
        del config[key]
    classic_config(config)


def unchanged(_config: dict) -> None:
    pass


def write(root: pathlib.Path) -> None:
    for name in CASES:
        make(root, name)
    respell(root, "lora/classifier", "lora/classic-names", classic_config,
            lambda ts: {classic_name(n): t for n, t in ts.items()})  # fmt: skip
    respell(root, "lora/classifier", "lora/both-names", both_config,
            lambda ts: {f(n): t.clone() for n, t in ts.items() for f in (str, classic_name)})  # fmt: skip
    respell(root, "lora/classifier", "lora/old-config", old_config,
            lambda ts: {classic_name(n): t for n, t in ts.items()})  # fmt: skip
    # Only the values are narrower: logits and merge are those of the widened numbers.
    respell(root, "lora/rank12", "lora/bf16-file", unchanged, lambda ts: {n: t.to(torch.bfloat16) for n, t in ts.items()})
    folder = root / "lora/bf16-file"
    case = json.loads((folder / "case.json").read_text())
    for key in ("merged", "base"):
        case.pop(key)
    describe(root, folder, "vit", **case)
