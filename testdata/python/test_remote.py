"""Bases that are read from a Hub while they are merged, and merged models that are sent there file by file: `hubtool serve` is the
Hub, Python puts the base there and loads what comes out, and PEFT's merge_and_unload says what that must be."""

import hashlib
import json
import os
import signal
import subprocess
import time

import pytest
import torch
from conftest import GOLDEN
from peft import PeftModel
from test_hub import hub, same_files  # noqa: F401
from test_merge import loads_in_transformers, reference_processor  # noqa: F401
from test_merge_llama import SIZES, adapter, base
from transformers import LlamaForCausalLM

METHODS = ["lora", "dora"]
LIMIT = "14MB"  # of a file: large enough for LFS
SIZES["remote"] = (dict(hidden_size=512, intermediate_size=1408, num_attention_heads=8, num_key_value_heads=4, vocab_size=8000), 3, LIMIT)


@pytest.fixture(scope="module")
def llama(hub, tmp_path_factory):  # noqa: F811
    """A text model of 34 MB in several files and an adapter of each method, on the Hub and here."""
    folder = tmp_path_factory.mktemp("llama")
    local = base(folder / "base", "remote", torch.bfloat16)
    (local / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Small Llama\n")
    hub.hf("upload", "ada/llama", local, ".")
    for method in METHODS:
        hub.hf("upload", f"ada/llama-{method}", adapter(folder / method, method, local), ".")
    return folder


def hashes(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.safetensors"))}


def large_files(folder) -> list:
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1 << 20]


def merged_by_peft(folder, method, out) -> dict[str, str]:
    model = LlamaForCausalLM.from_pretrained(folder / "base", dtype="auto")
    PeftModel.from_pretrained(model, folder / method).merge_and_unload().save_pretrained(out, max_shard_size=LIMIT)
    return hashes(out)


@pytest.mark.parametrize("method", METHODS)
def test_stream_and_push(hub, llama, tmp_path, method, reference_processor):  # noqa: F811
    """Nothing of the base in the cache, every byte of it once over the line, and files with the bits of merge_and_unload."""
    repo, home = f"ada/merged-{method}", f"home-{method}"
    out = hub.hubtool("merge", f"ada/llama-{method}", "--base", "ada/llama", "--stream", "--push", repo, "--json", home=home)
    summary = json.loads(out)
    size = sum(path.stat().st_size for path in (llama / "base").glob("*.safetensors"))
    assert summary["bytes_fetched"] == size and size < 2 * summary["bytes_sent"] < 2.1 * size  # the Hub has files of which nothing changed
    assert summary["out"] == "" and summary["commit_url"].startswith(f"{hub.url}/{repo}/commit/")
    assert not large_files(hub.folder / home / "hf" / "hub" / "models--ada--llama")
    assert not list((hub.folder / home).rglob("model-0*.safetensors"))

    hub.hf("download", repo, "--local-dir", tmp_path / "got")
    got = hashes(tmp_path / "got")
    assert got == {shard["name"]: shard["sha256"] for shard in summary["shards"]}
    want = merged_by_peft(llama, method, tmp_path / "want")
    assert got.keys() == want.keys()
    if reference_processor:
        assert got == want
    if method != METHODS[0]:
        return

    facts = hub.python(
        "import json, torch; from transformers import AutoModelForCausalLM; from huggingface_hub import ModelCard\n"
        f"model, report = AutoModelForCausalLM.from_pretrained({repo!r}, dtype='auto', output_loading_info=True)\n"
        f"card = ModelCard.load({repo!r}).data\n"
        "logits = model(torch.arange(12)[None]).logits[0, -1, :8].float().tolist()\n"
        "print(json.dumps([sum(map(len, report.values())), card.base_model, card.license, card.library_name, logits]))"
    )
    model = LlamaForCausalLM.from_pretrained(tmp_path / "want", dtype="auto")
    with torch.no_grad():
        logits = model(torch.arange(12)[None]).logits[0, -1, :8].float().tolist()
    assert facts[:4] == [0, "ada/llama", "apache-2.0", "transformers"]
    assert facts[4] == pytest.approx(logits, abs=0 if reference_processor else 0.05)


def test_stream_to_a_folder(hub, llama, tmp_path):  # noqa: F811
    """Streamed or pulled, with files of another size or the base's: the same folder; pushed, the same repository."""
    for args in ([], ["--shard-size", "20MB"]):
        names = [tmp_path / f"{how}{len(args)}" for how in ("pulled", "streamed")]
        hub.hubtool("merge", "ada/llama-lora", "--base", "ada/llama", "--out", names[0], *args, home="pulled")
        hub.hubtool("merge", "ada/llama-lora", "--base", "ada/llama", "--out", names[1], "--stream", *args, home="streamed")
        same_files(*names)
    repo = "ada/merged-folder"
    printed = hub.hubtool("merge", "ada/llama-lora", "--base", "ada/llama", "--stream", "--out", tmp_path / "out", "--push", repo, "--private")
    assert printed.splitlines()[0] == str(tmp_path / "out") and f"{hub.url}/{repo}/commit/" in printed.splitlines()[1]
    hub.hf("download", repo, "--local-dir", tmp_path / "got")
    same_files(tmp_path / "out", tmp_path / "got")
    private = hub.python(f"import json; from huggingface_hub import HfApi; print(json.dumps(HfApi().model_info({repo!r}).private))")
    assert private is True


def test_classifier(hub, tmp_path):  # noqa: F811
    """A bare ViTModel becomes a classifier while it is streamed: names change, a head comes in, and pipelines know the classes."""
    hub.hubtool("push", GOLDEN / "bases/bare", "ada/bare")
    hub.hubtool("push", GOLDEN / "lora/bare", "ada/bare-lora")
    hub.hubtool("merge", "ada/bare-lora", "--base", "ada/bare", "--out", tmp_path / "pulled", home="pulled")
    hub.hubtool("merge", "ada/bare-lora", "--base", "ada/bare", "--stream", "--push", "ada/bare-merged", home="streamed")
    hub.hf("download", "ada/bare-merged", "--local-dir", tmp_path / "got")
    (tmp_path / "got" / "README.md").unlink()
    same_files(tmp_path / "pulled", tmp_path / "got")
    assert loads_in_transformers(tmp_path / "got").config.architectures == ["ViTForImageClassification"]


def test_killed(hub, llama, tmp_path):  # noqa: F811
    """kill -9 as soon as a file has been sent; the next run neither fetches nor sends that one again, and the result is the same."""
    command = [hub.program, "merge", "ada/llama-lora", "--base", "ada/llama", "--stream", "--push", "ada/merged-killed", "--json"]
    env = hub.env("killed")
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(6000):
        journals = list((hub.folder / "killed").rglob(".hubtool-merge"))
        # A line for the inputs, one for the first file, which is gone when it was sent.
        if journals and journals[0].read_bytes().count(b"\n") > 1 and not list(journals[0].parent.glob("model-00001*")):
            break
        if process.poll() is not None:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    out = json.loads(hub.run(*command, home="killed"))
    size = sum(path.stat().st_size for path in (llama / "base").glob("*.safetensors"))
    assert out["bytes_fetched"] < 0.8 * size and out["bytes_sent"] < 0.8 * size
    hub.hf("download", "ada/merged-killed", "--local-dir", tmp_path / "got")
    hub.hubtool("merge", "ada/llama-lora", "--base", "ada/llama", "--out", tmp_path / "pulled", home="pulled")
    assert hashes(tmp_path / "got") == hashes(tmp_path / "pulled")


def test_inspect(hub, llama):  # noqa: F811
    """Described from its headers as from its files, and nothing but configuration in the cache."""
    far = json.loads(hub.hubtool("inspect", "ada/llama", "--json", home="inspect"))
    near = json.loads(hub.hubtool("inspect", llama / "base", "--json"))
    assert far == near
    assert not large_files(hub.folder / "inspect")
    adapter_far = json.loads(hub.hubtool("inspect", "ada/llama-dora", "--json", home="inspect"))
    assert adapter_far == json.loads(hub.hubtool("inspect", llama / "dora", "--json"))
    one = json.loads(hub.hubtool("inspect", "ada/llama", near["shards"][1]["name"], "--json", home="inspect"))
    assert one["shards"] == [near["shards"][1]]
