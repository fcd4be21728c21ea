"""Runs that die: what is left, what the program says, and that the continued run ends with the bytes of one that lived."""

import fcntl
import hashlib
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import termios
import time

import pytest
from conftest import GOLDEN, recipe
from peft.utils.save_and_load import load_peft_weights

METHODS = {
    "lora": dict(peft_type="LORA", r=4, lora_alpha=4, lora_dropout=0.1),
    "adalora": dict(peft_type="ADALORA", init_r=6, target_r=3, tinit=4, tfinal=4, deltaT=1, lora_dropout=0.1),
}

# Augmented (RandomResizedCrop and RandomHorizontalFlip, hubtool's default), accumulated, evaluated and saved at different steps.
TRAINING = dict(
    num_train_epochs=4, per_device_train_batch_size=8, gradient_accumulation_steps=3, eval_strategy="steps", eval_steps=3,
    save_strategy="steps", save_steps=2, logging_steps=1, early_stopping_patience=0,
)  # fmt: skip
BASE = GOLDEN / "bases" / "vit"


def config(folder, name, method="lora", **training):
    return recipe(folder / f"{name}.json", folder / name, adapter=METHODS[method], training=dict(TRAINING, **training), own_transforms=False,
                  train_split="train[:132]", eval_split="test[:24]")  # fmt: skip


def start(tool, *args, engine="go", **kwargs) -> subprocess.Popen:
    env = {**os.environ, "HOME": str(tool.home), "HUBTOOL_ENGINE": engine, "HF_ENDPOINT": "http://127.0.0.1:9"}
    env.pop("HF_HUB_OFFLINE", None)
    return subprocess.Popen([tool.program, *map(str, args)], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **kwargs)


def train(tool, file, *args, **kwargs):
    # The model has five classes, and digits ten.
    return tool("train", file, "--model", BASE, "--training.ignore-mismatched-sizes", *args, **kwargs)


def digest(folder) -> str:
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def checkpoints(folder) -> list[str]:
    return sorted((p.name for p in folder.glob("checkpoint-*") if p.name.split("-")[1].isdigit()), key=lambda n: int(n.split("-")[1]))


def log_of(folder) -> list[dict]:
    """The log less what differs from run to run."""
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    return [{key: value for key, value in entry.items() if not key.endswith(("runtime", "per_second"))} for entry in log]


def kill_and_resume(tool, folder, method, kills, seed, **training):
    """Kill runs at random moments, some of them more than once, and go on each time."""
    begun = time.monotonic()
    train(tool, config(folder, "whole", method, **training))
    took = time.monotonic() - begun
    want, log = digest(folder / "whole"), log_of(folder / "whole")
    rng, done, killed_in_training = random.Random(seed), 0, 0
    while done < kills:
        name = f"killed-{done}"
        file, resume = config(folder, name, method, **training), []
        while True:
            process = start(tool, "train", file, "--model", BASE, "--training.ignore-mismatched-sizes", *resume)
            try:
                process.communicate(timeout=rng.uniform(0.1, 1.0) * took)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                done += 1
                killed_in_training += bool(checkpoints(folder / name))
            else:
                assert process.returncode == 0
                break
            resume = ["--resume"] if checkpoints(folder / name) else []
            if done >= kills or rng.random() < 0.5:
                train(tool, file, *resume)
                break
        assert digest(folder / name) == want, f"{name} is another adapter"
        assert log_of(folder / name) == log
        assert checkpoints(folder / name) == checkpoints(folder / "whole")
        results = [json.loads((folder / n / "all_results.json").read_text()) for n in (name, "whole")]
        assert all(results[0][key] == results[1][key] for key in ("eval_accuracy", "eval_loss", "train_loss")), "of the parameters that are left"
        assert not list((folder / name).glob("*.partial"))
        shutil.rmtree(folder / name)
    assert killed_in_training > 0, "no kill came between the first checkpoint and the end"


@pytest.mark.parametrize("method", METHODS)
def test_kill_9(tool, tmp_path, method):
    kill_and_resume(tool, tmp_path, method, kills=3, seed=1)


def test_kill_9_where_only_the_best_is_saved(tool, tmp_path):
    kill_and_resume(tool, tmp_path, "lora", kills=3, seed=3, save_strategy="best", save_steps=None, save_total_limit=2)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_kill_9_at_twenty_points(tool, tmp_path, method):
    kill_and_resume(tool, tmp_path, method, kills=20, seed=2)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGHUP], ids=["interrupt", "hangup"])
def test_first_signal_saves(tool, tmp_path, sent):
    """One Ctrl-C, or a terminal that goes away, in the midst of a run saves and says how to go on."""
    train(tool, config(tmp_path, "whole"))
    file = config(tmp_path, "cut", save_steps=1000)  # so that only the interrupt saves
    process = start(tool, "train", file, "--model", BASE, "--training.ignore-mismatched-sizes", "--progress", "json")
    for line in process.stderr:
        if line.startswith('{"progress"') and json.loads(line)["progress"]["task"] == "training":
            process.send_signal(sent)
            break
    text = process.stderr.read()
    assert process.wait() == 130, text
    assert len(checkpoints(tmp_path / "cut")) == 1
    assert "--resume" in text and checkpoints(tmp_path / "cut")[0] in text
    train(tool, file, "--resume")
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_signal_that_ends_the_reader(tool, tmp_path):
    """Ctrl-C ends the tee of "2>&1 | tee log", too, and a run that has nobody to tell of it saves all the same."""
    file = config(tmp_path, "cut", save_strategy="no", save_steps=None, num_train_epochs=1000)
    process = start(tool, "train", file, "--model", BASE, "--training.ignore-mismatched-sizes", "--progress", "json")
    for line in process.stderr:
        if '"training"' in line:
            break
    process.stderr.close()
    time.sleep(0.7)  # in which there is progress to tell
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert len(checkpoints(tmp_path / "cut")) == 1


def in_terminal(tool, *command, log=None, **kwargs) -> tuple[subprocess.Popen, int]:
    """A process in a terminal of its own, and the other end of that: closing it closes the terminal. Words go to log, else to the terminal."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "HOME": str(tool.home), "HUBTOOL_ENGINE": "go", "TERM": "xterm"}
    process = subprocess.Popen([*map(str, command)], env=env, stdin=theirs, stdout=theirs, stderr=log or theirs, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0), **kwargs)  # fmt: skip
    os.close(theirs)
    return process, ours


@pytest.mark.parametrize("words", ["log", "terminal"])
def test_terminal_that_closes(tool, tmp_path, words):
    """The run saves, whoever can still read of it; who reads the log finds how to go on."""
    file = config(tmp_path, "cut", save_strategy="no", save_steps=None, num_train_epochs=1000)
    with open(tmp_path / "log", "w") as log:
        process, terminal = in_terminal(tool, tool.program, "train", file, "--model", BASE, "--training.ignore-mismatched-sizes", "--progress", "json",
                                        log=log if words == "log" else None)  # fmt: skip
        seen = ""
        while '"training"' not in seen:
            seen = (tmp_path / "log").read_text() if words == "log" else seen + os.read(terminal, 4096).decode()
            assert process.poll() is None
        os.close(terminal)
        assert process.wait() == 130
    saved = checkpoints(tmp_path / "cut")
    assert len(saved) == 1
    if words == "log":
        text = (tmp_path / "log").read_text()
        assert "--resume" in text and saved[0] in text


def test_nohup(tool, tmp_path):
    """Under nohup neither a terminal that closes nor the signal itself ends a run."""
    train(tool, config(tmp_path, "whole"))
    file = config(tmp_path, "through", save_steps=1)
    with open(tmp_path / "log", "w") as log:
        process, terminal = in_terminal(tool, "nohup", tool.program, "train", file, "--model", BASE, "--training.ignore-mismatched-sizes", "--progress", "json", log=log,
                                        cwd=tmp_path)  # where nohup leaves nohup.out  # fmt: skip
        while not checkpoints(tmp_path / "through"):
            time.sleep(0.02)
            assert process.poll() is None
        os.close(terminal)
        process.send_signal(signal.SIGHUP)
        before = len(checkpoints(tmp_path / "through"))
        assert process.wait() == 0, (tmp_path / "log").read_text()
    assert len(checkpoints(tmp_path / "through")) > before, "the run was over before the signal came"
    assert digest(tmp_path / "through") == digest(tmp_path / "whole")


def test_loss_that_is_no_number(tool, tmp_path):
    """The run stops and names the step; the last good checkpoint stays, and what the hint says goes on from it."""
    file = config(tmp_path, "nan", learning_rate=1e37, max_grad_norm=0, save_steps=1, lr_scheduler_type="constant_with_warmup", warmup_steps=8)
    result = train(tool, file, "--json", code=1)
    error = result.error()
    assert error["kind"] == "diverged" and "step" in error["message"]
    kept = checkpoints(tmp_path / "nan")
    assert kept and kept[-1] in error["hint"] and "--training.init-adapter" in error["hint"]
    good = tmp_path / "nan" / kept[-1]
    assert all(tensor.isfinite().all() for tensor in load_peft_weights(good).values())
    assert not (tmp_path / "nan" / "adapter_model.safetensors").exists()
    train(tool, config(tmp_path, "again", max_steps=2, eval_strategy="no", early_stopping_patience=0, eval_steps=None), "--training.init-adapter", good.with_name(kept[0]),
          "--learning-rate", "1e-9")  # fmt: skip


def test_unwritable_output(tool, tmp_path):
    """Found out before anything is trained."""
    (tmp_path / "file").write_text("")
    result = train(tool, config(tmp_path, "cfg"), "--out", tmp_path / "file" / "out", code=1)
    assert "--out" in result.err and "training:" not in result.err


def test_full_disk(tool, tmp_path):
    """A checkpoint that does not fit ends the run; those before it are whole, and with room the run goes on to the same bytes."""
    train(tool, config(tmp_path, "whole", save_steps=1))
    size = sum(f.stat().st_size for f in (tmp_path / "whole" / "checkpoint-2").iterdir())
    room = (3 * size + size // 2) // 1024
    out, kept = tmp_path / "small" / "full", tmp_path / "kept"
    out.parent.mkdir()
    file = config(tmp_path, "full", save_steps=1)
    # A user namespace may mount a small file system, which is gone with it: its files are copied out.
    script = f'mount -t tmpfs -o size={room}k none "{out.parent}" || exit 77; "$@"; code=$?; cp -r "{out}" "{kept}"; exit $code'
    command = ["unshare", "-Urm", "sh", "-c", script, "sh", tool.program, "train", file, "--model", BASE, "--training.ignore-mismatched-sizes", "--out", out]
    env = {**os.environ, "HOME": str(tool.home), "HUBTOOL_ENGINE": "go"}
    if not shutil.which("unshare"):
        pytest.skip("no unshare")
    done = subprocess.run([*map(str, command), "--json"], env=env, capture_output=True, text=True)
    if not kept.exists() and done.returncode != 1:
        pytest.skip(f"no file system can be mounted here: {done.stderr}")
    error = json.loads(done.stderr.strip().splitlines()[-1])["error"]
    assert (error["code"], error["kind"]) == (1, "no-space")
    whole = checkpoints(kept)
    assert whole and whole[-1] in error["hint"] and "--resume" in error["hint"]
    assert not list(kept.glob("*.partial"))
    for name in whole:
        assert digest(kept / name) == digest(tmp_path / "whole" / name)
    train(tool, file, "--out", kept, "--resume")
    assert digest(kept) == digest(tmp_path / "whole")


def serve(tool, folder) -> tuple[subprocess.Popen, str]:
    server = subprocess.Popen([tool.program, "serve", "--dir", str(folder), "--addr", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True)
    return server, server.stdout.readline().strip()


def test_server_that_dies_at_push(tool, tmp_path):
    """The server is there when training begins, and gone at its end: the adapter is complete, and the command that the hint names pushes it."""
    file = config(tmp_path, "out", max_steps=12, eval_strategy="no", eval_steps=None, save_steps=1)
    server, url = serve(tool, tmp_path / "hub")
    try:
        process = start(tool, "train", file, "--model", BASE, "--training.ignore-mismatched-sizes", "--push", "--training.hub-model-id", "me/adapter",
                        "--endpoint", url, "--token", "hf_x", "--json")  # fmt: skip
        while process.poll() is None and not checkpoints(tmp_path / "out"):
            time.sleep(0.02)
    finally:
        server.kill()
        server.wait()
    errors = process.communicate()[1]
    assert process.returncode == 5, errors
    hint = json.loads(errors.splitlines()[-1])["error"]["hint"]
    assert load_peft_weights(str(tmp_path / "out"))
    assert (tmp_path / "out" / "README.md").exists() and (tmp_path / "out" / "run.yaml").exists()
    command = hint.split('"')[1].replace("'", "").split()
    assert command[:2] == ["hubtool", "push"]
    server, url = serve(tool, tmp_path / "hub")
    try:
        tool(*command[1:], "--endpoint", url, "--token", "hf_x")
        files = tool("pull", "me/adapter", "--endpoint", url, "--json").json()["files"]
    finally:
        server.terminate()
        server.wait()
    names = {f["name"] for f in files}
    assert "adapter_model.safetensors" in names and not any(name.startswith("checkpoint") for name in names)
