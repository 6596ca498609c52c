"""A copy of the package for what a contributor does to it, and the host's double with the copied extension in it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "lib_latent_upscale"

_START = """
import importlib.util, json, sys
def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
from PIL import Image
outer = load("webui_conftest", "tests/webui/conftest.py")
seen = {}
"""


def copy_to(folder: Path) -> Path:
    """Copy the package and what its tests in the double need; returns the folder of the package."""
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    for name in ("scripts", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("core", "webui"):  # what webui's conftest.py imports
        shutil.copytree(ROOT / "tests" / name, folder / "tests" / name)
    return folder / PACKAGE


def seen_in(folder: Path, script: str) -> dict[str, Any]:
    """What a script that runs in the copy puts into `seen`; it has `outer`, the module of webui's fixtures."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", f"{_START}{script}\nprint(json.dumps(seen))"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
