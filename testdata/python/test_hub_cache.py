"""The cache that hubtool and huggingface_hub share: the same bytes on disk, the same locks, and each repairs or removes what the other wrote."""

import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import pytest
from test_hub import TOKEN, Hub, same_files

REPO = "ada/layout"


@pytest.fixture(scope="module")
def hub(program, tmp_path_factory):
    hub = Hub(program, tmp_path_factory.mktemp("hub"))
    yield hub
    hub.server.terminate()
    hub.server.wait(10)
    hub.log.close()


@pytest.fixture(scope="module")
def model(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text('{"model_type": "vit"}')
    (folder / "sub" / "deeper").mkdir(parents=True)
    (folder / "sub" / "deeper" / "empty.txt").touch()
    (folder / "sub" / "ünï çødé #?%.txt").write_text("names are bytes")
    (folder / "big.bin").write_bytes(os.urandom(11 << 20))
    hub.hubtool("push", folder, REPO)
    return folder


def layout(cache: pathlib.Path) -> dict:
    """Everything below a cache: link targets and contents by name; lock files by name only."""
    found = {}
    for path in sorted(cache.rglob("*")):
        name = str(path.relative_to(cache))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = "" if name.startswith(".locks") else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def cache(hub, home: str) -> pathlib.Path:
    return hub.folder / home / "hf" / "hub"


def test_same_bytes_in_the_cache(hub, model):
    hub.hubtool("pull", REPO, home="go")
    hub.hf("download", REPO, "--quiet", home="py")
    mine, theirs = layout(cache(hub, "go")), layout(cache(hub, "py"))
    assert mine == theirs
    for name in mine:
        mode = [(cache(hub, home) / name).stat().st_mode for home in ("go", "py")]
        if not name.startswith(".locks"):
            assert mode[0] == mode[1], name


def test_same_records_in_a_local_directory(hub, model, tmp_path):
    hub.hubtool("pull", REPO, "--local-dir", tmp_path / "go", home="local")
    hub.hf("download", REPO, "--local-dir", tmp_path / "py", home="local")
    both = []
    for folder in ("go", "py"):
        records = {}
        for path in sorted((tmp_path / folder).rglob("*")):
            name = str(path.relative_to(tmp_path / folder))
            if path.is_file() and not name.endswith(".lock"):
                text = path.read_bytes()
                records[name] = text.splitlines()[:2] if name.endswith(".metadata") else text
        both.append(records)
    assert both[0] == both[1]
    # Each takes the other's directory for complete.
    assert json.loads(hub.hubtool("pull", REPO, "--local-dir", tmp_path / "py", "--json", home="local"))["bytes_fetched"] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "go").rglob("*") if path.is_file() and ".cache" not in path.parts}
    hub.hf("download", REPO, "--local-dir", tmp_path / "go", home="local")
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_known_absent_files(hub, model):
    """A missing file is remembered the way that transformers asks for it."""
    hub.hubtool("pull", REPO, "config.json", home="absent")
    missing = subprocess.run([hub.program, "pull", REPO, "nope"], env=hub.env("absent"), capture_output=True)
    assert missing.returncode == 3
    code = (
        "import json; from huggingface_hub import try_to_load_from_cache as t, _CACHED_NO_EXIST as no\n"
        f"print(json.dumps([str(t({REPO!r}, 'config.json')), t({REPO!r}, 'nope') is no]))"
    )
    found, known = hub.python(code, home="absent")
    assert found.endswith("config.json") and known


def test_both_at_once(hub, model):
    """Several downloads of one repository by both programs into one cache."""
    commands = [[hub.program, "pull", REPO], [pathlib.Path(sys.executable).with_name("hf"), "download", REPO, "--quiet"]] * 3
    running = [subprocess.Popen(list(map(str, c)), env=hub.env("race"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for c in commands]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err.decode()
    assert layout(cache(hub, "race")) == {k: v for k, v in layout(cache(hub, "race")).items() if not k.endswith((".incomplete", ".tmp"))}
    assert "All checksums match" in hub.hf("cache", "verify", REPO, home="race")
    hub.hubtool("cache", "verify", REPO, home="race")


def test_waits_for_pythons_lock(hub, model):
    """hubtool does not touch content whose lock a Python process holds, and goes on when it is free."""
    etag = hashlib.sha256((model / "big.bin").read_bytes()).hexdigest()
    lock = cache(hub, "wait") / ".locks" / "models--ada--layout" / f"{etag}.lock"
    lock.parent.mkdir(parents=True)
    code = f"from huggingface_hub.utils import WeakFileLock\nwith WeakFileLock({str(lock)!r}):\n print('held', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    puller = subprocess.Popen([hub.program, "pull", REPO], env=hub.env("wait"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    blobs = cache(hub, "wait") / "models--ada--layout" / "blobs"
    deadline = time.time() + 60
    while not (blobs.exists() and len(list(blobs.iterdir())) >= 3) and time.time() < deadline:
        time.sleep(0.05)  # the other files arrive
    time.sleep(0.5)
    assert puller.poll() is None and not list(blobs.glob(f"{etag}*"))
    holder.communicate("\n", timeout=30)
    out, err = puller.communicate(timeout=60)
    assert puller.returncode == 0, err
    same_files(model, pathlib.Path(out.strip()))


def test_python_waits_for_our_lock(hub, model):
    """The reverse: while hubtool downloads, Python waits for the same content and then finds it."""
    hub.hubtool("pull", REPO, home="second")
    found = hub.hf("download", REPO, "big.bin", "--quiet", home="second").strip()
    assert pathlib.Path(found).read_bytes() == (model / "big.bin").read_bytes()


def test_adopts_what_a_killed_python_left(hub, model):
    content = (model / "big.bin").read_bytes()
    etag = hashlib.sha256(content).hexdigest()
    blobs = cache(hub, "orphan") / "models--ada--layout" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{etag}.0a1b2c3d.incomplete").write_bytes(content[: 6 << 20])
    done = json.loads(hub.hubtool("pull", REPO, "big.bin", "--json", home="orphan"))
    assert done["bytes_fetched"] == len(content) - (6 << 20)
    assert [path.name for path in blobs.iterdir()] == [etag]
    assert "All checksums match" in hub.hf("cache", "verify", REPO, home="orphan")


def test_each_looks_after_the_others_cache(hub, model):
    hub.hubtool("pull", REPO, home="care")
    listed = hub.hf("cache", "ls", home="care")
    assert REPO in listed and "inconsistenc" not in listed
    assert REPO in hub.hubtool("cache", "ls", home="care")
    # An old revision without a ref: hubtool prunes what Python downloaded.
    hub.hf("download", REPO, "--quiet", home="care")
    old = hub.hubtool("pull", REPO, home="care").strip()
    (model / "config.json").write_text('{"model_type": "deit"}')
    hub.hubtool("push", model, REPO)
    new = hub.hf("download", REPO, "--quiet", home="care").strip()
    assert new != old
    hub.hubtool("cache", "prune", "--yes", home="care")
    assert not pathlib.Path(old).exists()
    same_files(model, pathlib.Path(new))
    report = hub.hf("cache", "ls", "--revisions", home="care")
    assert "inconsistenc" not in report
    hub.hf("cache", "rm", f"model/{REPO}", "--yes", home="care")
    assert REPO not in hub.hubtool("cache", "ls", home="care")


def test_python_prunes_our_cache(hub, model):
    old = hub.hubtool("pull", REPO, home="prune").strip()
    (model / "config.json").write_text('{"model_type": "swin"}')
    hub.hubtool("push", model, REPO)
    new = hub.hubtool("pull", REPO, home="prune").strip()
    hub.hf("cache", "prune", "--yes", home="prune")
    assert not pathlib.Path(old).exists()
    assert hub.hubtool("pull", REPO, "--offline", home="prune").strip() == new


def test_damage_is_found_by_both(hub, model):
    snapshot = pathlib.Path(hub.hubtool("pull", REPO, home="damage").strip())
    with (snapshot / "big.bin").open("r+b") as file:
        file.write(b"damage")
    env = hub.env("damage")
    assert subprocess.run([hub.program, "cache", "verify", REPO], env=env, capture_output=True).returncode == 6
    hf = pathlib.Path(sys.executable).with_name("hf")
    assert subprocess.run([hf, "cache", "verify", REPO], env=env, capture_output=True).returncode != 0


def test_tokens(hub):
    """login writes what Python reads, and the reverse."""
    for home, login in (("token-go", [hub.program, "login"]), ("token-py", None)):
        env = {key: value for key, value in hub.env(home).items() if key != "HF_TOKEN"}
        if login:
            subprocess.run(login, env=env, input=TOKEN + "\n", text=True, check=True, capture_output=True)
        else:
            hf = pathlib.Path(sys.executable).with_name("hf")
            subprocess.run([hf, "auth", "login", "--token", TOKEN], env=env, check=True, capture_output=True)
        folder = hub.folder / home / "hf"
        assert (folder / "token").read_text() == TOKEN and (folder / "token").stat().st_mode & 0o777 == 0o600
        assert re.fullmatch(r"\[[^\]]+\]\nhf_token = " + TOKEN + r"\n\n", (folder / "stored_tokens").read_text())
        code = "import json; from huggingface_hub import get_token; from huggingface_hub.utils import get_stored_tokens; print(json.dumps([get_token(), list(get_stored_tokens().values())]))"
        out = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True).stdout
        assert json.loads(out) == [TOKEN, [TOKEN]]
        assert "user" in subprocess.run([hub.program, "whoami"], env=env, text=True, capture_output=True, check=True).stdout
        subprocess.run([hub.program, "logout"], env=env, check=True, capture_output=True)
        out = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True).stdout
        assert json.loads(out) == [None, []]
