"""Exit with 1 unless every `name==version` of a requirements file is what this Python has installed."""

import importlib.metadata
import sys

for line in open(sys.argv[1]):
    name, _, version = line.partition("#")[0].strip().partition("==")
    try:
        found = importlib.metadata.version(name) if name else version
    except importlib.metadata.PackageNotFoundError:
        found = "nothing"
    if found != version:
        sys.exit(f"{name}: {version} wanted, {found} installed")
