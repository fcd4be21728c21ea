"""llama.cpp for the interop suite: bases in its format, and what it predicts with an adapter.

As a program it prints JSON, a list of log probabilities of the token after a prompt for every scale of the adapter. A program of
its own it is because llama.cpp ends the process where it finds a mistake of its caller.

    python llamacpp.py base.gguf lora.gguf 64 [1,5,9] [0,1]         # the number of words, a prompt, scales
"""

import json
import pathlib
import subprocess
import sys

import numpy as np


def log_probabilities(base, adapter, vocabulary: int, prompt: list[int], scales: list[float]) -> np.ndarray:
    """[scales, words], by llama.cpp in float32."""
    args = [str(base), str(adapter), str(vocabulary), json.dumps(prompt), json.dumps(scales)]
    done = subprocess.run([sys.executable, __file__, *args], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return np.array(json.loads(done.stdout))


def rotated_as_neighbours(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys of models whose heads llama.cpp rotates otherwise: (heads, 2, half) becomes (heads, half, 2)."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_base(model, arch: str, path: pathlib.Path, neighbours: bool = False) -> None:
    """Write a model of transformers, in float32, for llama.cpp's architecture; neighbours: see rotated_as_neighbours."""
    import gguf

    c = model.config
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == arch)
    w = gguf.GGUFWriter(path, arch)
    words = [b"<unk>", b"<s>", b"</s>"] + [b"word%d" % i for i in range(c.vocab_size - 3)]
    normal, unknown, control = 1, 2, 3
    w.add_tokenizer_model("llama")
    w.add_token_list(words)
    w.add_token_scores([0.0] * len(words))
    w.add_token_types([unknown, control, control] + [normal] * (len(words) - 3))
    setting = lambda *names: next((v for n in names if (v := getattr(c, n, None)) is not None), None)  # noqa: E731
    groups, head = setting("num_key_value_heads", "num_attention_heads"), setting("head_dim") or c.hidden_size // c.num_attention_heads
    rope = setting("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    metadata = [
        (w.add_context_length, c.max_position_embeddings),
        (w.add_embedding_length, c.hidden_size),
        (w.add_block_count, c.num_hidden_layers),
        (w.add_feed_forward_length, setting("intermediate_size") or 4 * c.hidden_size),
        (w.add_head_count, c.num_attention_heads),
        (w.add_head_count_kv, groups),
        (w.add_key_length, head),
        (w.add_value_length, head),
        (w.add_layer_norm_rms_eps, setting("rms_norm_eps")),
        (w.add_layer_norm_eps, setting("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon")),
        (w.add_rope_freq_base, rope.get("rope_theta")),
        (w.add_rope_dimension_count, int(head * rope.get("partial_rotary_factor", 1)) if rope else None),
        (w.add_rope_scaling_orig_ctx_len, setting("original_max_position_embeddings")),
        (w.add_sliding_window, setting("sliding_window") or (0 if arch == "phi3" else None)),
        (w.add_attn_logit_softcapping, setting("attn_logit_softcapping")),
        (w.add_final_logit_softcapping, setting("final_logit_softcapping")),
        (w.add_attention_scale, setting("attention_multiplier")),
        (w.add_embedding_scale, setting("embedding_multiplier")),
        (w.add_residual_scale, setting("residual_multiplier")),
        (w.add_logit_scale, setting("logits_scaling")),
    ]
    for add, value in metadata:
        if value is not None:
            add(value)
    names = gguf.get_tensor_name_map(number, c.num_hidden_layers)
    transposed = {name + ".weight" for name, module in model.named_modules() if type(module).__name__ == "Conv1D"}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        values = tensor.float().numpy()
        if name in transposed:
            values = values.T
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1  # transformers multiplies by 1 + weight
        name = names.get_name(name, (".weight", ".bias"))
        if neighbours and (".attn_q." in name or ".attn_k." in name):
            values = rotated_as_neighbours(values, c.num_attention_heads if ".attn_q." in name else groups)
        w.add_tensor(name, np.ascontiguousarray(values))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main(base: str, adapter: str, vocabulary: str, prompt: str, scales: str) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.lora_adapters = base, [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
    params.n_ctx, params.n_parallel, params.warmup, params.fit_params, params.verbosity = 128, 1, False, False, 1
    # llama.cpp would round keys and values, and its fast attention more, to float16.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    for threads in params.cpuparams, params.cpuparams_batch:
        threads.n_threads = 1  # more wait for one another in busy loops
    server, answers = xllamacpp.Server(params), []
    for scale in json.loads(scales):
        request = dict(prompt=json.loads(prompt), max_tokens=1, temperature=0, logprobs=int(vocabulary), lora=[dict(id=0, scale=scale)])
        answer = server.handle_completions({**request, "cache_prompt": False})
        top = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        by_word = {word["id"]: word["logprob"] for word in top}
        answers.append([by_word[word] for word in range(int(vocabulary))])
    print(json.dumps(answers))


if __name__ == "__main__":
    main(*sys.argv[1:])
