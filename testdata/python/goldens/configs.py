"""Configuration files that are found on the Hub, with what transformers reads out of them."""

import json
import pathlib
import tempfile

from transformers import BitImageProcessorPil, ViTConfig, ViTImageProcessorPil

from . import common

IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])

# As the repositories hold them: written by releases from 4.5 to 4.40, long before the current spelling.
PREPROCESSORS = {
    "feature-extractor": dict(do_normalize=True, do_resize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, size=224),
    "feature-extractor-type": dict(
        do_normalize=True, do_resize=True, feature_extractor_type="ViTFeatureExtractor", image_mean=[0.5] * 3,
        image_std=[0.5] * 3, resample=2, size=384,
    ),
    "vit-4.30": dict(
        do_normalize=True, do_rescale=True, do_resize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3,
        image_processor_type="ViTImageProcessor", resample=2, rescale_factor=1 / 255, size=dict(height=224, width=224),
    ),
    "bicubic": dict(
        do_normalize=True, do_resize=True, image_processor_type="ViTImageProcessor", resample=3, size=dict(height=32, width=48),
        **IMAGENET,
    ),
    "no-normalize": dict(do_normalize=False, do_resize=True, do_rescale=True, image_processor_type="ViTImageProcessor",
                         rescale_factor=1.0, size=dict(height=28, width=28)),
    "fast": dict(do_normalize=True, do_resize=True, image_processor_type="ViTImageProcessorFast", resample=2, size=dict(height=8, width=8),
                 image_mean=[0.5] * 3, image_std=[0.5] * 3, crop_size=None, do_center_crop=None),
    "bit": dict(  # as facebook/dinov2-base has it
        crop_size=dict(height=224, width=224), do_center_crop=True, do_convert_rgb=True, do_normalize=True, do_rescale=True, do_resize=True,
        image_processor_type="BitImageProcessor", resample=3, rescale_factor=1 / 255, size=dict(shortest_edge=256), **IMAGENET,
    ),
    "bit-defaults": dict(image_processor_type="BitImageProcessorFast"),
    "bit-numbers": dict(feature_extractor_type="BitFeatureExtractor", size=40, crop_size=32, resample=2),
}  # fmt: skip

MODELS = {
    "vit-4.13": dict(  # google/vit-base-patch16-224-in21k, reduced: no labels, no dtype, no qkv_bias
        architectures=["ViTModel"], attention_probs_dropout_prob=0.0, hidden_act="gelu", hidden_dropout_prob=0.0, hidden_size=48,
        image_size=32, initializer_range=0.02, intermediate_size=96, layer_norm_eps=1e-12, model_type="vit",
        num_attention_heads=3, num_channels=3, num_hidden_layers=2, patch_size=8, transformers_version="4.13.0.dev0",
        _name_or_path="google/vit-base-patch16-224-in21k",
    ),
    "labels": dict(
        architectures=["ViTForImageClassification"], model_type="vit", hidden_size=48, num_attention_heads=3,
        id2label={"0": "tench", "1": "b\u00e9b\u00e9", "10": "last", "2": "<&>"},
        label2id={"tench": 0, "b\u00e9b\u00e9": 1, "last": 10, "<&>": 2}, torch_dtype="bfloat16", transformers_version="4.30.2",
    ),
    "minimal": dict(model_type="vit"),
}  # fmt: skip

READ = """hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act image_size patch_size num_channels
    layer_norm_eps initializer_range qkv_bias num_labels id2label""".split()


def write(root: pathlib.Path) -> None:
    for name, content in PREPROCESSORS.items():
        folder = root / "preprocessor" / name
        common.save_json(folder / "preprocessor_config.json", content)
        processor = (BitImageProcessorPil if name.startswith("bit") else ViTImageProcessorPil).from_pretrained(folder)
        keys = "size crop_size resample do_resize do_center_crop do_rescale do_normalize rescale_factor image_mean image_std".split()
        read = {key: getattr(processor, key) for key in keys}
        for key in ("size", "crop_size"):
            read[key] = {k: v for k, v in dict(read[key]).items() if v is not None} if read[key] else None
        common.save_json(folder / "expected.json", json.loads(json.dumps(read, default=int)))
    for name, content in MODELS.items():
        folder = root / "model" / name
        common.save_json(folder / "config.json", content)
        config = ViTConfig.from_pretrained(folder)
        common.save_json(folder / "expected.json", {key: getattr(config, key) for key in READ})
        with tempfile.TemporaryDirectory() as scratch:
            config.save_pretrained(scratch)
            (folder / "saved.json").write_text((pathlib.Path(scratch) / "config.json").read_text())
