"""Adapters that hubtool writes for llama.cpp, read by its package gguf, which has the names and shapes that llama.cpp looks for."""

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

HEADS, GROUPS = 6, 2
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"]


def rearranged(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as in llama.cpp's files of models: (heads, 2, half) becomes (heads, half, 2)."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).transpose(0, 2, 1, 3).reshape(weight.shape)


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=48, intermediate_size=40, num_hidden_layers=2, num_attention_heads=HEADS, num_key_value_heads=GROUPS,
                         vocab_size=30, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "base")
    return model


@pytest.mark.parametrize("settings", [
    dict(r=4, lora_alpha=6),
    dict(r=4, lora_alpha=6, use_rslora=True, rank_pattern={"down_proj": 2}, alpha_pattern={"layers.1.self_attn.k_proj": 5}),
])  # fmt: skip
def test_llama(tool, tmp_path, model, settings):
    config = LoraConfig(target_modules=MODULES, init_lora_weights=False, **settings)
    peft = get_peft_model(model, config)
    peft.save_pretrained(tmp_path / "adapter")
    made = tool("convert", tmp_path / "adapter", "--to", "gguf", "--base", tmp_path / "base", "-o", tmp_path / "made", "--json").json()
    reader = gguf.GGUFReader(made["out"])
    field = lambda key: reader.get_field(key).contents()  # noqa: E731
    assert (field("general.architecture"), field("general.type"), field("adapter.type")) == ("llama", "adapter", "lora")
    alpha = field("adapter.lora.alpha")
    got = {t.name: t for t in reader.tensors}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    layers = {name: module for name, module in peft.named_modules() if hasattr(module, "lora_A") and len(module.lora_A)}
    assert len(layers) == 2 * 7 + 1 and len(got) == 2 * len(layers)
    for name, module in layers.items():
        name = names.get_name(name.removeprefix("base_model.model.")) + ".weight"
        a, b = got[name + ".lora_a"], got[name + ".lora_b"]
        assert {a.tensor_type, b.tensor_type} == {gguf.GGMLQuantizationType.F32}
        # llama.cpp multiplies by ggml's dimensions, the fastest first: a [in, rank], b [rank, out].
        weight, rank = module.base_layer.weight, a.shape[1]
        assert (a.shape[0], b.shape[1]) == (weight.shape[1], weight.shape[0]) and b.shape[0] == rank
        want = module.get_delta_weight("default").detach().numpy()
        if ".attn_q." in name or ".attn_k." in name:
            want = rearranged(want, HEADS if ".attn_q." in name else GROUPS)
        np.testing.assert_allclose(b.data @ a.data * (alpha / rank), want, atol=1e-6, err_msg=name)


def test_refused(tool, tmp_path, model):
    get_peft_model(model, LoraConfig(target_modules=["embed_tokens"])).save_pretrained(tmp_path / "adapter")
    args = ["convert", tmp_path / "adapter", "--to", "gguf", "--base", tmp_path / "base", "-o", tmp_path / "made"]
    assert "linear layers of Llama's blocks" in tool(*args, code=7).err
    config = (tmp_path / "base/config.json").read_text()
    (tmp_path / "base/config.json").write_text(config.replace("LlamaForCausalLM", "GemmaForCausalLM"))
    assert "convert_lora_to_gguf.py" in tool(*args, code=7).err
    assert not (tmp_path / "made").exists()
