"""`hubtool engine` with the real plugin for the processor, and with what is not one."""

import base64
import hashlib
import os
import pathlib
import shutil
import subprocess
import zipfile

import pytest
from conftest import GOLDEN, Hubtool, xla_plugin

WHEEL = "lammps_jax_pjrt_cpu-0.11.2-py3-none-manylinux_2_27_x86_64.whl"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """The wheel that the plugin was installed from, put together again."""
    path, record = tmp_path_factory.mktemp("wheel") / WHEEL, ""
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in {"lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so": xla_plugin()}.items():
            archive.write(source, name)
            digest = hashlib.sha256(pathlib.Path(source).read_bytes()).digest()
            record += f"{name},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{os.path.getsize(source)}\n"
        archive.writestr("lammps_jax_pjrt_cpu-0.11.2.dist-info/RECORD", record)
    return path


@pytest.fixture
def fresh(program, tmp_path, monkeypatch) -> Hubtool:
    """A program that has no engine installed, and chooses."""
    for name in ["XDG_DATA_HOME", "XDG_CACHE_HOME", "PJRT_PLUGIN_LIBRARY_PATH"]:
        monkeypatch.delenv(name, raising=False)
    return Hubtool(program, "", tmp_path / "home")


def test_install_from_a_wheel(fresh, wheel, pictures):
    before = fresh("predict", GOLDEN / "bases" / "vit", *pictures(16, 16))
    assert "computing on go" in before.err and "no XLA plugin is installed" in before.err
    plugin = pathlib.Path(fresh("engine", "install", "cpu", "--from", wheel.parent, "--json").json()["plugin"])
    assert plugin == fresh.home / ".local/share/hubtool/engines/cpu/lammps_jax_pjrt_cpu/pjrt_c_api_cpu_plugin.so"
    assert plugin.stat().st_size == os.path.getsize(xla_plugin())
    engines = fresh("engine", "ls", "--json").json()["engines"]
    assert [(e["engine"], e["usable"]) for e in engines] == [("go", True), (f"xla:{plugin}", True)]
    after = fresh("predict", GOLDEN / "bases" / "vit", *pictures(16, 16))
    assert f"computing on xla:{plugin}" in after.err and "installed and works" in after.err
    assert [line.split()[:2] for line in after.out.splitlines()] == [line.split()[:2] for line in before.out.splitlines()]


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_damaged_wheel(fresh, wheel, tmp_path, damage):
    data = bytearray(wheel.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
    else:
        data = b"not a wheel"
    path = tmp_path / WHEEL
    path.write_bytes(data)
    error = fresh("engine", "install", path, "--json", code=6).error()
    assert error["kind"] == "damaged-file" and WHEEL in error["message"]
    assert not list((fresh.home / ".local/share/hubtool/engines").iterdir())


def compiled(path: pathlib.Path, source: str) -> pathlib.Path:
    if not shutil.which("cc"):
        pytest.skip("no C compiler")
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", path], input=source, text=True, check=True)
    return path


CRASH = "void *GetPjrtApi(void) { *(volatile int *)0 = 1; return 0; }"
NOTHING = "void *GetPjrtApi(void) { return 0; }"
AT_LOADING = "#include <stdlib.h>\n__attribute__((constructor)) static void load(void) { abort(); }\nvoid *GetPjrtApi(void) { return 0; }"
MISSING = "extern int nowhere(void); void *GetPjrtApi(void) { return (void *)(long)nowhere(); }"


@pytest.mark.parametrize("source", [CRASH, NOTHING, AT_LOADING, MISSING], ids=["crash", "null", "abort", "unresolved"])
def test_plugin_that_crashes(fresh, pictures, tmp_path, source):
    """It is refused when it is installed; where it lies in the search path the choice goes on without it, and named it is an error."""
    plugin = compiled(tmp_path / "pjrt_c_api_crash_plugin.so", source)
    error = fresh("engine", "install", plugin, "--json", code=6).error()
    assert "goroutine" not in error["message"] and "\n" not in error["message"]
    fresh("predict", GOLDEN / "bases" / "vit", pictures(16, 16)[0], "--engine", f"xla:{plugin}", code=2)
    named = Hubtool(fresh.program, f"xla:{plugin}", fresh.home)  # in HUBTOOL_ENGINE: the commands that look say what is wrong
    assert [e["usable"] for e in named("engine", "ls", "--json").json()["engines"]] == [True, False]
    checks = named("doctor", "--offline", "--json").json()["checks"]
    assert [c["status"] for c in checks if c["name"] == "engine"] == ["ok", "problem"]
    os.environ["PJRT_PLUGIN_LIBRARY_PATH"] = str(tmp_path)
    try:
        result = fresh("predict", GOLDEN / "bases" / "vit", pictures(16, 16)[0])
        assert "computing on go" in result.err and "pjrt_c_api_crash_plugin.so" in result.err
        assert [e["usable"] for e in fresh("engine", "ls", "--json").json()["engines"]] == [True, False]
        assert "pjrt_c_api_crash_plugin.so" in fresh("doctor", "--offline").out
    finally:
        del os.environ["PJRT_PLUGIN_LIBRARY_PATH"]


def test_truncated_library(fresh, pictures, tmp_path):
    """The real plugin, cut: a sentence, without loading it."""
    plugin = tmp_path / "pjrt_c_api_cut_plugin.so"
    with open(xla_plugin(), "rb") as source:
        plugin.write_bytes(source.read(10 << 20))
    fresh("engine", "install", plugin, code=6)
    result = fresh("predict", GOLDEN / "bases" / "vit", pictures(16, 16)[0], "--engine", f"xla:{plugin}", code=2)
    assert "damaged" in result.err


def test_unknown_engine(fresh):
    assert "cpu" in fresh("engine", "install", "cpux", "--json", code=2).error()["message"]
