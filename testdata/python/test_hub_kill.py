"""kill -9 at random points of pulls and pushes: the bytes are right at the end, and hardly any of them is transferred twice."""

import hashlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import threading
import time

import pytest
from test_hub import TOKEN, Hub, same_files


class Line:
    """A slow line to the Hub that counts what it carries each way. Its buffers are small: what waits in them is lost by a kill."""

    RATE = 100e6  # bytes a second, both ways together

    def __init__(self, url: str):
        host, port = url.removeprefix("http://").split(":")
        self.target = (host, int(port))
        self.down = self.up = 0
        self.lock, self.free_at = threading.Lock(), time.monotonic()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.socket()
            for end in (client, server):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 << 10)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 10)
            server.connect(self.target)
            threading.Thread(target=self.carry, args=(client, server, "up"), daemon=True).start()
            threading.Thread(target=self.carry, args=(server, client, "down"), daemon=True).start()

    def carry(self, source, sink, way):
        try:
            while data := source.recv(32 << 10):
                with self.lock:
                    setattr(self, way, getattr(self, way) + len(data))
                    self.free_at = max(self.free_at, time.monotonic()) + len(data) / self.RATE
                    wait = self.free_at - time.monotonic()
                if wait > 0.001:
                    time.sleep(wait)
                sink.sendall(data)
        except OSError:
            pass
        finally:
            for end in (source, sink):
                try:
                    end.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


@pytest.fixture
def hub(program, tmp_path):
    hub = Hub(program, tmp_path)
    hub.direct, hub.line = hub.url, Line(hub.url)
    yield hub
    hub.server.terminate()
    hub.server.wait(10)
    hub.log.close()


def make(folder: pathlib.Path, size: int, seed: int) -> pathlib.Path:
    """A large file that comes in ranges, one that comes in one stream, and small ones."""
    rng = random.Random(seed)
    (folder / "sub").mkdir(parents=True)
    parts = {"large.bin": size * 3 // 4, "medium.bin": size // 4 - 8 * 50_000} | {f"sub/{i}.json": 50_000 for i in range(8)}
    for name, length in parts.items():
        with open(folder / name, "wb") as file:
            while length > 0:
                file.write(rng.randbytes(min(length, 1 << 24)))
                length -= 1 << 24
    return folder


def killed_often(hub, command: list, way: str, size: int, kills: int, seed: int) -> float:
    """Run a command until it succeeds, killing it whenever the line has carried one more of random amounts; what was carried / size."""
    rng = random.Random(seed)
    points = sorted(rng.randrange(size) for _ in range(kills))
    hub.url = hub.line.url
    env = hub.env("home")
    start, killed = getattr(hub.line, way), 0
    while True:
        child = subprocess.Popen(list(map(str, command)), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while child.poll() is None:
            if points and getattr(hub.line, way) - start >= points[0]:
                child.kill()
                points.pop(0)
                killed += 1
                break
            time.sleep(0.002)
        _, errors = child.communicate()
        if child.returncode == 0:
            break
        assert child.returncode == -9, errors.decode()
    hub.url = hub.direct
    carried = (getattr(hub.line, way) - start) / size
    print(f"{command[1]}: {killed} kills, {carried:.3f} times {size / 1e6:.0f} MB")
    assert killed >= kills - len(points) and killed > 0
    return carried


SIZES = [pytest.param(128_000_000, 10, id="128MB"), pytest.param(1_000_000_000, 50, id="1GB", marks=pytest.mark.slow)]


@pytest.mark.parametrize("size,kills", SIZES)
def test_killed_pull(hub, tmp_path, size, kills):
    folder = make(tmp_path / "data", size, 1)
    hub.hubtool("push", folder, "ada/kill", home="pusher")
    carried = killed_often(hub, [hub.program, "pull", "ada/kill", "--quiet"], "down", size, kills, 2)
    found = pathlib.Path(hub.hubtool("pull", "ada/kill", "--offline", home="home").strip())
    same_files(folder, found)
    blobs = list((hub.folder / "home" / "hf" / "hub" / "models--ada--kill" / "blobs").iterdir())
    assert not [b.name for b in blobs if b.name.endswith((".incomplete", ".tmp"))]
    assert carried <= 1.1


@pytest.mark.parametrize("size,kills", SIZES)
def test_killed_push(hub, tmp_path, size, kills):
    folder = make(tmp_path / "data", size, 3)
    carried = killed_often(hub, [hub.program, "push", folder, "ada/kill", "--quiet"], "up", size, kills, 4)
    hub.hubtool("pull", "ada/kill", "--local-dir", tmp_path / "back", home="puller")
    same_files(folder, tmp_path / "back")
    assert carried <= 1.1


def test_two_pulls_at_once(hub, tmp_path):
    """hubtool and Python into one cache: one download of each file, and both have them right."""
    size = 100_000_000
    folder = make(tmp_path / "data", size, 5)
    hub.hubtool("push", folder, "ada/both", home="pusher")
    hub.url = hub.line.url
    hf = pathlib.Path(sys.executable).with_name("hf")
    commands = [[hf, "download", "ada/both", "--quiet"], [hub.program, "pull", "ada/both", "--quiet"]]
    running = [subprocess.Popen(list(map(str, c)), env=hub.env("both"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    for process in running:
        out, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        same_files(folder, pathlib.Path(out.strip().splitlines()[-1].removeprefix("path: ")))
    assert hub.line.down <= 1.02 * size


def test_two_pushes_of_one_file(hub, tmp_path):
    """Two processes send the same large file at once: neither takes the other's unfinished upload for its own."""
    folder = make(tmp_path / "data", 60_000_000, 6)
    command = [hub.program, "push", folder, "ada/twice", "--json"]
    hub.hubtool("push", folder, "ada/twice", "--include", "sub/0.json")
    running = [subprocess.Popen(list(map(str, command)), env=hub.env("home"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in running:
        out, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
        assert json.loads(out)["commit"]
    hub.hubtool("pull", "ada/twice", "--local-dir", tmp_path / "back", home="puller")
    same_files(folder, tmp_path / "back")
    assert hashlib.sha256((tmp_path / "back" / "large.bin").read_bytes()).digest() == hashlib.sha256((folder / "large.bin").read_bytes()).digest()
    assert TOKEN not in (hub.folder / "serve.log").read_text() and not list((hub.folder / "home" / "hf" / "hub" / ".locks" / "uploads").iterdir())
    assert os.listdir(hub.folder / "hub" / "incoming") == []
