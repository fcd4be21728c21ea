"""Files in the names of sd-scripts that hubtool writes, loaded by diffusers: models compute with them what they do with PEFT's adapter."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader
from peft import LoraConfig, get_peft_model
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

WIDTH, WORDS = 32, 50
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]


def unet():
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    return UNet2DConditionModel(sample_size=8, block_out_channels=(32, 64), layers_per_block=1, down_block_types=down, up_block_types=up,
                                cross_attention_dim=WIDTH, attention_head_dim=8, norm_num_groups=8)  # fmt: skip


def text_encoder(kind):
    return kind(CLIPTextConfig(vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=37, num_attention_heads=4, num_hidden_layers=2,
                               max_position_embeddings=20, bos_token_id=1, eos_token_id=2, projection_dim=WIDTH))  # fmt: skip


def same_as_peft(tool, tmp_path, model, targets: list[str], prefix: list[str], load, run) -> None:
    """Adapt a model with PEFT, and a copy with the file that hubtool makes of the adapter."""
    model.eval()
    patterns = dict(rank_pattern={targets[0]: 2}, alpha_pattern={targets[-1]: 3})
    config = LoraConfig(r=4, lora_alpha=6, target_modules=targets, init_lora_weights=False, **patterns)
    peft = get_peft_model(copy.deepcopy(model), config).eval()
    peft.save_pretrained(tmp_path / "adapter")
    made = tool("convert", tmp_path / "adapter", "--to", "kohya", *prefix, "-o", tmp_path / "made", "--json").json()["out"]
    with torch.no_grad():
        without, want = run(model), run(peft)
        load(*Loader.lora_state_dict(made), model)
        got = run(model)
    assert (want - without).abs().max() > 0.1
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("targets", [
    ATTENTION + ["proj_in", "proj_out"],
    ["conv1", "conv2", "time_emb_proj", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"],
    ["conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"],
], ids=["attention", "blocks", "ends"])  # fmt: skip
def test_unet(tool, tmp_path, targets):
    torch.manual_seed(0)
    model, image, words = unet(), torch.randn(1, 4, 8, 8), torch.randn(1, 5, WIDTH)
    same_as_peft(tool, tmp_path, model, targets, [], Loader.load_lora_into_unet, lambda m: m(image, 10, words).sample)


@pytest.mark.parametrize("kind, prefix, name", [
    (CLIPTextModel, [], "text_encoder"),
    (CLIPTextModel, ["--prefix", "lora_te1"], "text_encoder"),
    (CLIPTextModelWithProjection, ["--prefix", "lora_te2"], "text_encoder_2"),
])  # fmt: skip
def test_text_encoder(tool, tmp_path, kind, prefix, name):
    torch.manual_seed(0)
    targets, words = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], torch.arange(2, 9)[None]

    def load(state, alphas, model):
        Loader.load_lora_into_text_encoder(state, alphas, model, prefix=name)

    same_as_peft(tool, tmp_path, text_encoder(kind), targets, prefix, load, lambda m: m(input_ids=words)[0])
