"""`hubtool serve` as a Hub for huggingface_hub with its default settings, hf_xet included: every way to write and read a repository."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, HfFileSystem
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from test_hub import TOKEN, Hub

BIG = os.urandom(12_000_000)


@pytest.fixture(scope="module")
def hub(program, tmp_path_factory):
    hub = Hub(program, tmp_path_factory.mktemp("hub"))
    yield hub
    hub.server.terminate()
    hub.server.wait(10)
    hub.log.close()


@pytest.fixture(scope="module")
def api(hub):
    # conftest sets the offline mode for this process, which is about the public Hub.
    import huggingface_hub.constants as constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    yield HfApi(endpoint=hub.url, token=TOKEN)
    constants.HF_HUB_OFFLINE = before


@pytest.fixture
def repo(api, request):
    name = f"ada/{request.node.name.replace('[', '-').replace(']', '')}"
    api.create_repo(name)
    return name


def read(api, repo, path, **kwargs) -> bytes:
    with open(api.hf_hub_download(repo, path, force_download=True, **kwargs), "rb") as file:
        return file.read()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"))


def test_large_file_from_a_path(api, repo, tmp_path):
    (tmp_path / "big.bin").write_bytes(BIG)
    api.upload_file(path_or_fileobj=tmp_path / "big.bin", path_in_repo="big.bin", repo_id=repo)
    assert read(api, repo, "big.bin") == BIG
    info = api.get_paths_info(repo, "big.bin")[0]
    assert info.size == len(BIG) and info.lfs.sha256 and info.lfs.size == len(BIG)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 12_000_000])
def test_content_in_memory(api, repo, size):
    api.upload_file(path_or_fileobj=BIG[:size], path_in_repo="sub/x", repo_id=repo)
    assert read(api, repo, "sub/x") == BIG[:size]


def test_file_object(api, repo):
    api.upload_file(path_or_fileobj=io.BytesIO(BIG), path_in_repo="x", repo_id=repo)
    assert read(api, repo, "x") == BIG


def test_without_xet(hub, tmp_path):
    """The same large upload by a client that has Xet switched off."""
    (tmp_path / "big.bin").write_bytes(BIG)
    code = (
        "import json, os; from huggingface_hub import HfApi; a = HfApi(); a.create_repo('ada/noxet')\n"
        f"a.upload_folder(repo_id='ada/noxet', folder_path={str(tmp_path)!r})\n"
        "print(json.dumps(a.get_paths_info('ada/noxet', 'big.bin')[0].lfs.size))"
    )
    env = {**hub.env("noxet"), "HF_HUB_DISABLE_XET": "1"}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert out.returncode == 0, out.stderr
    assert json.loads(out.stdout.splitlines()[-1]) == len(BIG)


def test_folder_of_many_files(api, repo, tmp_path):
    names = [f"data/{i:04}.txt" for i in range(600)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert sorted(api.list_repo_files(repo)) == names
    before = api.list_repo_commits(repo)
    api.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert api.list_repo_commits(repo) == before  # nothing changed, so no commit
    api.upload_folder(repo_id=repo, folder_path=tmp_path, path_in_repo="data", allow_patterns="nothing", delete_patterns="05*")
    assert len(api.list_repo_files(repo)) == 500


def test_operations(api, repo):
    add = lambda path, data: CommitOperationAdd(path_in_repo=path, path_or_fileobj=data)  # noqa: E731
    first = api.create_commit(repo, [add("a", b"a"), add("d/b", b"b"), add("d/c", b"c")], commit_message="one", commit_description="why")
    second = api.create_commit(repo, [CommitOperationDelete("d/"), add("a", b"A")], commit_message="two", parent_commit=first.oid)
    assert api.list_repo_files(repo) == ["a"] and read(api, repo, "a") == b"A"
    assert read(api, repo, "d/b", revision=first.oid) == b"b"
    assert [c.title for c in api.list_repo_commits(repo)] == ["two", "one", "initial commit"]
    with pytest.raises(HfHubHTTPError) as conflict:
        api.create_commit(repo, [add("z", b"z")], commit_message="three", parent_commit=first.oid)
    assert conflict.value.response.status_code == 412
    with pytest.raises(EntryNotFoundError):
        api.delete_file("nope", repo)
    assert api.repo_info(repo).sha == second.oid
    api.super_squash_history(repo, commit_message="all")
    assert [c.title for c in api.list_repo_commits(repo)] == ["all"] and read(api, repo, "a") == b"A"


def test_branches_tags_and_pull_requests(api, repo):
    api.upload_file(path_or_fileobj=b"1", path_in_repo="x", repo_id=repo)
    api.create_branch(repo, branch="feature/y")
    api.create_tag(repo, tag="v1")
    with pytest.raises(HfHubHTTPError):
        api.create_branch(repo, branch="feature/y")
    api.create_branch(repo, branch="feature/y", exist_ok=True)
    api.upload_file(path_or_fileobj=b"2", path_in_repo="x", repo_id=repo, revision="feature/y")
    opened = api.upload_file(path_or_fileobj=b"3", path_in_repo="x", repo_id=repo, create_pr=True)
    assert opened.pr_num == 1
    values = [read(api, repo, "x", revision=r) for r in ("main", "feature/y", "v1", "refs/pr/1")]
    assert values == [b"1", b"2", b"1", b"3"]
    refs = api.list_repo_refs(repo, include_pull_requests=True)
    assert [b.name for b in refs.branches] == ["feature/y", "main"] and [t.name for t in refs.tags] == ["v1"] and len(refs.pull_requests) == 1
    assert api.get_discussion_details(repo, 1).status == "open"
    api.merge_pull_request(repo, 1)
    assert read(api, repo, "x") == b"3" and api.get_discussion_details(repo, 1).status == "merged"
    api.delete_tag(repo, tag="v1")
    api.delete_branch(repo, branch="feature/y")
    with pytest.raises(RevisionNotFoundError):
        api.repo_info(repo, revision="v1")


def test_pull_request_of_a_folder(api, repo, tmp_path):
    """The streamed upload opens the pull request first and then commits to it."""
    for i in range(3):
        (tmp_path / f"{i}").write_text(str(i))
    done = api.upload_folder(repo_id=repo, folder_path=tmp_path, create_pr=True)
    assert done.pr_revision == "refs/pr/1" and len(api.list_repo_files(repo, revision="refs/pr/1")) == 3
    assert api.list_repo_files(repo) == []


def test_names_and_listing(api, repo):
    names = ["a b.txt", "ünï/çødé.txt", "100%.txt", "q?#.txt", "ünï/e\u0301.txt"]
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=name.encode()) for name in names]
    api.create_commit(repo, operations, commit_message="names")
    assert sorted(api.list_repo_files(repo)) == sorted(names)
    for name in names:
        assert read(api, repo, name) == name.encode()
    tree = list(api.list_repo_tree(repo, expand=True))
    assert {entry.path for entry in tree} == {"a b.txt", "ünï", "100%.txt", "q?#.txt"} and all(entry.last_commit for entry in tree)
    assert {entry.path for entry in api.list_repo_tree(repo, "ünï")} == {"ünï/çødé.txt", "ünï/e\u0301.txt"}
    assert {p.path for p in api.get_paths_info(repo, ["a b.txt", "ünï", "nope"])} == {"a b.txt", "ünï"}
    assert api.file_exists(repo, "100%.txt") and not api.file_exists(repo, "101%.txt")


def test_file_system(api, hub, repo):
    fs = HfFileSystem(endpoint=hub.url, token=TOKEN, skip_instance_cache=True)
    with fs.open(f"{repo}/dir/data.bin", "wb") as file:
        file.write(BIG[:100_000])
    with fs.open(f"{repo}/dir/data.bin", "rb") as file:
        file.seek(50_000)
        assert file.read(10) == BIG[50_000:50_010]
    assert fs.ls(f"{repo}/dir", detail=False) == [f"{repo}/dir/data.bin"]
    assert fs.glob(f"{repo}/**/*.bin") == [f"{repo}/dir/data.bin"]


def test_access(api, hub, repo):
    anonymous, wrong = HfApi(endpoint=hub.url, token=False), HfApi(endpoint=hub.url, token="hf_wrong")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)
    assert read(anonymous, repo, "x") == b"x"  # reading is open
    for stranger in (anonymous, wrong):
        with pytest.raises(HfHubHTTPError) as refused:
            stranger.upload_file(path_or_fileobj=b"y", path_in_repo="x", repo_id=repo)
        assert refused.value.response.status_code == 401
    api.update_repo_settings(repo, private=True)
    with pytest.raises(RepositoryNotFoundError):
        anonymous.repo_info(repo)
    api.update_repo_settings(repo, private=False, gated="auto")
    api.upload_file(path_or_fileobj=b"y", path_in_repo="y", repo_id=repo)
    with pytest.raises(GatedRepoError):
        anonymous.hf_hub_download(repo, "y")  # x is in the cache, and a cached file would do
    assert read(api, repo, "x") == b"x"
    with pytest.raises(HfHubHTTPError):
        api.create_repo(repo)
    assert api.create_repo(repo, exist_ok=True).repo_id == repo
    assert api.create_repo("bare-name").repo_id == "user/bare-name"
    assert api.whoami()["name"] == "user"


def test_move_and_delete(api, repo):
    api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo)
    api.move_repo(repo, "ada/moved")
    assert read(api, repo, "x") == b"x" and api.repo_info(repo).id == "ada/moved"
    assert "ada/moved" in {m.id for m in api.list_models(author="ada")}
    api.delete_repo("ada/moved")
    assert not api.repo_exists("ada/moved")


XET = """
import json, os, random, struct, hf_xet
from huggingface_hub import HfApi
a, r = HfApi(), random.Random({seed})
a.create_repo({repo!r}, exist_ok=True)
noise = r.randbytes(13_000_000)
contents = {{
    "noise.bin": noise,
    "same-again.bin": noise,
    "edited.bin": noise[:5_000_000] + b"an insertion" + noise[5_000_000:],
    "zeros.bin": bytes(11_000_000),
    "text.bin": ("the quick brown fox %d " * 600_000).encode()[:11_500_000],
    "floats.bin": b"".join(struct.pack("<f", 1 + i / 3e6) for i in range(3_000_000)),
    "odd.bin": b"".join(struct.pack("<f", 1 + i / 3e6) for i in range(2_600_000)) + b"xyz",
}}
for name, data in contents.items():
    open(os.path.join({folder!r}, name), "wb").write(data)
a.upload_folder(repo_id={repo!r}, folder_path={folder!r})
assert all(f.lfs for f in a.get_paths_info({repo!r}, list(contents)))
for name, data in contents.items():
    with open(a.hf_hub_download({repo!r}, name, local_dir={folder!r} + "-back", force_download=True), "rb") as f:
        assert f.read() == data, name
print(1)
"""


def test_xet_chunks(program, tmp_path):
    """Every compression, chunks shared within and between files, and chunks that only an earlier session has sent."""
    (tmp_path / "f").mkdir()
    hub = Hub(program, tmp_path)
    script = XET.format(seed=1, repo="ada/xet", folder=str(tmp_path / "f"))
    hub.python(script)
    hub.python(XET.format(seed=1, repo="ada/second", folder=str(tmp_path / "f")))  # the client has sent all of it before
    hub.server.terminate()
    hub.server.wait(10)
    again = Hub(program, tmp_path)
    port = again.url.rsplit(":", 1)[1]
    again.python(XET.format(seed=1, repo="ada/third", folder=str(tmp_path / "f")))
    again.server.terminate()
    again.server.wait(10)
    # An empty Hub at the same address must not be taken for the old one.
    (tmp_path / "new").mkdir()
    command = [program, "serve", "--dir", tmp_path / "new" / "hub", "--addr", f"127.0.0.1:{port}", "--token", TOKEN]
    fresh = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, stdin=subprocess.DEVNULL)
    assert fresh.stdout.readline().strip() == again.url
    try:
        again.python(XET.format(seed=1, repo="ada/fourth", folder=str(tmp_path / "f")))
    finally:
        fresh.terminate()
        fresh.wait(10)
    assert not list((tmp_path / "new" / "hub" / "incoming").iterdir())


def test_data_set_push_to_hub(hub):
    rows = hub.python(
        "import json; from datasets import Dataset, load_dataset\n"
        "Dataset.from_dict({'n': list(range(100))}).push_to_hub('ada/numbers')\n"
        "d = load_dataset('ada/numbers', split='train[10:20]'); s = load_dataset('ada/numbers', split='train', streaming=True)\n"
        "print(json.dumps([list(d['n']), next(iter(s))['n']]))"
    )
    assert rows == [list(range(10, 20)), 0]


def test_model_push_to_hub(hub):
    same = hub.python(
        "import json, torch; from transformers import ViTConfig, ViTForImageClassification\n"
        "m = ViTForImageClassification(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4))\n"
        "m.push_to_hub('ada/pushed'); n = ViTForImageClassification.from_pretrained('ada/pushed')\n"
        "print(json.dumps(all(torch.equal(a, b) for a, b in zip(m.state_dict().values(), n.state_dict().values()))))"
    )
    assert same


def test_survives_kill(program, tmp_path):
    """kill -9 in the middle of an upload, and a start on the same folder: what was committed is there, nothing else."""
    hub = Hub(program, tmp_path)
    hub.python("import json; from huggingface_hub import HfApi; a = HfApi(); a.create_repo('ada/kill'); a.upload_file(path_or_fileobj=b'1', path_in_repo='x', repo_id='ada/kill'); print(1)")
    (tmp_path / "big.bin").write_bytes(os.urandom(150_000_000))
    pushing = subprocess.Popen([program, "push", tmp_path / "big.bin", "ada/kill"], env=hub.env("home"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.time() + 30
    while not any((tmp_path / "hub" / "incoming").iterdir()) and time.time() < deadline:
        time.sleep(0.002)
    hub.server.send_signal(signal.SIGKILL)
    hub.server.wait()
    pushing.kill()
    pushing.wait()
    again = Hub(program, tmp_path)
    files = again.python(
        "import json; from huggingface_hub import HfApi, hf_hub_download as d; a = HfApi()\n"
        "print(json.dumps([a.list_repo_files('ada/kill'), open(d('ada/kill', 'x')).read(), len(a.list_repo_commits('ada/kill'))]))"
    )
    assert files == [["x"], "1", 2]
    assert list((tmp_path / "hub" / "incoming").iterdir()) == []
    again.hubtool("push", tmp_path / "big.bin", "ada/kill")
    assert again.python("import json; from huggingface_hub import HfApi; print(json.dumps(HfApi().list_repo_files('ada/kill')))") == ["big.bin", "x"]
    again.server.terminate()
    again.server.wait(10)
