"""Writes golden.json: what huggingface_hub puts on disk for a small repository, and for a token.

    python make_golden.py path/to/hubtool

The commit, which has the time in it, is written as COMMIT, and times as TIME. Made with huggingface_hub 2.4.0.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

FILES = {
    "README.md": b"# golden\n",
    "sub/empty.txt": b"",
    "sub/deeper/\u00fcn\u00ef \U0001f600 <&>.txt": b"names are bytes",
    "big.bin": b"x" * 11_000_000,
}
TOKEN = "hf_goldengoldengolden"


def tree(folder: pathlib.Path, commit: str) -> dict:
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder)).replace(commit, "COMMIT")
        if path.is_symlink():
            found[name] = "-> " + os.readlink(path)
        elif path.is_file() and not name.endswith(".lock"):
            data = path.read_bytes()
            text = data.decode().replace(commit, "COMMIT") if len(data) < 10_000 else f"{len(data)} bytes"
            found[name] = re.sub(r"\d{10}\.\d+", "TIME", text)
        elif path.is_file():
            found[name] = ""
    return found


def main(program: str) -> None:
    work = pathlib.Path(tempfile.mkdtemp())
    server = subprocess.Popen(
        [program, "serve", "--dir", work / "hub", "--addr", "127.0.0.1:0", "--token", TOKEN], stdout=subprocess.PIPE, text=True
    )
    try:
        os.environ.update(
            HF_ENDPOINT=server.stdout.readline().strip(),
            HF_TOKEN=TOKEN,
            HF_HOME=str(work / "home"),
            HF_HUB_DISABLE_UPDATE_CHECK="1",
        )
        from huggingface_hub import CommitOperationAdd, HfApi, login, snapshot_download

        api = HfApi()
        api.create_repo("acme/golden")
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in FILES.items()]
        commit = api.create_commit("acme/golden", operations, commit_message="golden").oid
        snapshot_download("acme/golden")
        snapshot_download("acme/golden", local_dir=work / "local")
        login(TOKEN)
        golden = {
            "cache": tree(work / "home" / "hub", commit),
            "local": tree(work / "local", commit),
            "token": (work / "home" / "token").read_text(),
            "stored_tokens": (work / "home" / "stored_tokens").read_text(),
        }
        target = pathlib.Path(__file__).with_name("golden.json")
        target.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    finally:
        server.terminate()


main(sys.argv[1])
