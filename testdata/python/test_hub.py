"""`hubtool serve`, `push`, `pull` and the cache beside the real client: `hf`, huggingface_hub, datasets, from_pretrained."""

import filecmp
import json
import os
import pathlib
import subprocess
import sys

import pytest
from conftest import DIGITS, GOLDEN, TINY
from huggingface_hub import scan_cache_dir

TOKEN = "hf_interopsuite"


class Hub:
    """A running `hubtool serve`, and the two clients pointed at it."""

    def __init__(self, program: str, folder: pathlib.Path):
        self.program, self.folder = program, folder
        command = [program, "serve", "--dir", folder / "hub", "--addr", "127.0.0.1:0", "--token", TOKEN]
        self.log = (folder / "serve.log").open("w")
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True, stdin=subprocess.DEVNULL)
        self.url = self.server.stdout.readline().strip()
        assert self.url.startswith("http://"), (folder / "serve.log").read_text()

    def env(self, home: str) -> dict:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUBTOOL"))}
        home = self.folder / home
        return {**env, "HOME": str(home), "HF_HOME": str(home / "hf"), "HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN}

    def run(self, *command, home: str = "home") -> str:
        done = subprocess.run(
            list(map(str, command)), env=self.env(home), capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            pytest.fail(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}", pytrace=False)
        return done.stdout

    def hubtool(self, *args, **kwargs) -> str:
        return self.run(self.program, *args, **kwargs)

    def hf(self, *args, **kwargs) -> str:
        return self.run(pathlib.Path(sys.executable).with_name("hf"), *args, **kwargs)

    def python(self, code: str, **kwargs):
        """What a script prints last, as JSON."""
        return json.loads(self.run(sys.executable, "-c", code, **kwargs).strip().splitlines()[-1])


@pytest.fixture(scope="module")
def hub(program, tmp_path_factory):
    hub = Hub(program, tmp_path_factory.mktemp("hub"))
    yield hub
    hub.server.terminate()
    assert hub.server.wait(10) in (0, 130, 143, -15)
    hub.log.close()


@pytest.fixture(scope="module")
def model(hub, tmp_path_factory):
    """A folder with a file for each way of upload: text, small binary, and one above the limit for LFS."""
    folder = tmp_path_factory.mktemp("model")
    for path in TINY.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "sub").mkdir()
    (folder / "sub" / "weights.bin").write_bytes(os.urandom(11 << 20))
    return folder


def same_files(a: pathlib.Path, b: pathlib.Path) -> None:
    names = {str(p.relative_to(a)) for p in a.rglob("*") if p.is_file()}
    found = {str(p.relative_to(b)) for p in b.rglob("*") if p.is_file() and ".cache" not in p.parts}
    assert found - {".gitattributes"} == names
    for name in names:
        assert filecmp.cmp(a / name, b / name, shallow=False), name


def test_hf_uploads_and_both_download(hub, model, tmp_path):
    hub.hf("upload", "ada/from-hf", model, ".")
    hub.hf("download", "ada/from-hf", "--local-dir", tmp_path / "hf")
    hub.hubtool("pull", "ada/from-hf", "--local-dir", tmp_path / "hubtool")
    same_files(model, tmp_path / "hf")
    same_files(model, tmp_path / "hubtool")


def test_hubtool_pushes_and_both_download(hub, model, tmp_path):
    pushed = json.loads(hub.hubtool("push", model, "ada/from-hubtool", "--json"))
    assert "sub/weights.bin" in pushed["uploaded"]
    hub.hf("download", "ada/from-hubtool", "--local-dir", tmp_path / "hf")
    hub.hubtool("pull", "ada/from-hubtool", "--local-dir", tmp_path / "hubtool")
    same_files(model, tmp_path / "hf")
    same_files(model, tmp_path / "hubtool")
    again = json.loads(hub.hubtool("push", model, "ada/from-hubtool", "--json"))
    assert again["uploaded"] == []


def test_cache_is_shared(hub, model):
    """What hubtool pulled, Python finds without a request, and the reverse; neither sees damage in the other's cache."""
    hub.hubtool("push", model, "ada/shared")
    for home, first in (("one", hub.hubtool), ("two", hub.hf)):
        command = ["pull", "ada/shared"] if first == hub.hubtool else ["download", "ada/shared", "--quiet"]
        first(*command, home=home)
        found = hub.python(
            "import json; from huggingface_hub import snapshot_download as d; print(json.dumps(d('ada/shared', local_files_only=True)))",
            home=home,
        )
        assert hub.hubtool("pull", "ada/shared", "--offline", home=home).strip() == found
        same_files(model, pathlib.Path(found))
        report = scan_cache_dir(hub.folder / home / "hf" / "hub")
        assert not report.warnings and [repo.repo_id for repo in report.repos] == ["ada/shared"]
        fetched = json.loads(hub.hubtool("pull", "ada/shared", "--json", home=home))
        assert all(file["cached"] for file in fetched["files"]) and fetched["bytes_fetched"] == 0


def test_branches_and_pull_requests(hub, model):
    hub.hubtool("push", model, "ada/branches", "--include", "*.json")
    hub.run(sys.executable, "-c", "from huggingface_hub import HfApi; HfApi().create_branch('ada/branches', branch='next')")
    hub.hubtool("push", model, "ada/branches", "--revision", "next", "--include", "*.md")
    opened = json.loads(hub.hubtool("push", model, "ada/branches", "--create-pr", "--include", "*.py", "--json"))
    assert opened["pull_request"]
    files = hub.python(
        "import json; from huggingface_hub import HfApi; a = HfApi()\n"
        "print(json.dumps({r: a.list_repo_files('ada/branches', revision=r) for r in ('main', 'next', 'refs/pr/1')}))"
    )
    assert "README.md" not in files["main"] and "README.md" in files["next"]
    assert "make.py" not in files["main"] and "make.py" in files["refs/pr/1"]


def test_data_set_with_datasets(hub):
    hub.hubtool("push", DIGITS, "ada/digits", "--repo-type", "dataset")
    rows = hub.python(
        "import json; from datasets import load_dataset; d = load_dataset('ada/digits')\n"
        "print(json.dumps([d['train'].num_rows, d['test'].num_rows, d['test'][0]['image'].size]))"
    )
    assert rows == [1437, 360, [8, 8]]


def test_from_pretrained(hub):
    """Base and adapter by repository name, in transformers and PEFT and in hubtool, with the same answer."""
    hub.hubtool("push", GOLDEN / "bases/vit", "ada/vit")
    hub.hubtool("push", GOLDEN / "lora/classifier", "ada/vit-lora")
    want = hub.python(
        "import json, torch, numpy, PIL.Image\n"
        "from peft import PeftModel; from transformers import ViTForImageClassification, ViTImageProcessorPil\n"
        "image = numpy.arange(16 * 16 * 3, dtype=numpy.uint8).reshape(16, 16, 3)\n"
        f"PIL.Image.fromarray(image).save({str(hub.folder / 'image.png')!r})\n"
        "model = PeftModel.from_pretrained(ViTForImageClassification.from_pretrained('ada/vit'), 'ada/vit-lora').eval()\n"
        "pixels = ViTImageProcessorPil.from_pretrained('ada/vit')(PIL.Image.fromarray(image), return_tensors='pt')\n"
        "print(json.dumps(model(**pixels).logits.tolist()[0]))"
    )
    row = json.loads(hub.hubtool("predict", "ada/vit-lora", hub.folder / "image.png", "--base", "ada/vit", "--logits", "--json"))
    assert row["logits"] == pytest.approx(want, abs=1e-4)
