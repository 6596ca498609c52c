"""A further pass is a row and a file: what a contributor does, done to a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lib_latent_upscale
from lib_latent_upscale.standalone.files.metadata import read_parameters

PACKAGE = Path(lib_latent_upscale.__file__).parent

FILE = """
from dataclasses import dataclass
from typing import ClassVar

from PIL import ImageOps

from lib_latent_upscale.options import Settings, option


@dataclass(frozen=True)
class MirrorSettings(Settings):
    NAME: ClassVar[str] = "mirror"
    SWITCH: ClassVar[str] = "mirror"
    PREFIX: ClassVar[str] = "mirror_"
    MODEL_LABEL: ClassVar[str] = "Mirror model"
    MODEL_FLAG: ClassVar[str] = "--mirror"
    FLAGS: ClassVar[str] = "--mirror-"

    times: int = option(1, low=1, high=9, label="Mirror times", infotext="Mirror times", tip="how often")


@dataclass(frozen=True)
class Mirror:
    name: str

    def __call__(self, image, settings, seed, progress, interrupted=None):
        for _ in range(settings.times):
            image = ImageOps.mirror(image)
        return image, settings


def load_pass(source, arguments):
    return Mirror(source)
"""
ROW = 'PassRow(MirrorSettings, "mirror", "any", "over the result"),'
IMPORT = "from lib_latent_upscale.standalone.commands.mirror import MirrorSettings\n"


@pytest.fixture
def contributed(tmp_path):
    """Runs the command with one more pass."""
    copy = tmp_path / "copy" / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    commands = copy / "standalone" / "commands"
    (commands / "mirror.py").write_text(FILE)
    table = commands / "passes.py"
    text = table.read_text().replace("\nif TYPE_CHECKING:", f"{IMPORT}\nif TYPE_CHECKING:", 1)
    before, head, rows = text.partition("PASSES: tuple[PassRow, ...] = (")
    table.write_text(before + head + rows.replace("\n)\n", f"\n    {ROW}\n)\n", 1))
    environment = {**os.environ, "PYTHONPATH": str(copy.parent), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        command = [sys.executable, "-m", "lib_latent_upscale", *map(str, arguments)]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    return run


def test_it_runs_and_is_written_down_and_taken_over(contributed, picture_file, sd1_folder, tmp_path):
    plain, made, again = (tmp_path / f"{name}.png" for name in ("plain", "made", "again"))
    model = ["--model", sd1_folder, "--device", "cpu", "--quiet"]
    fixed = ["--steps", "1", "--size", "64x48"]
    for output, more in ((plain, fixed), (made, [*fixed, "--mirror", "glass", "--mirror-times", "3"])):
        done = contributed("upscale", picture_file, "-o", output, *model, *more)
        assert done.returncode == 0, done.stderr
    assert (np.asarray(Image.open(made)) == np.asarray(Image.open(plain))[:, ::-1]).all()
    assert read_parameters(made).endswith("Mirror model: glass, Mirror times: 3")
    done = contributed("upscale", picture_file, "-o", again, *model, "--like", made, "--mirror", "glass")
    assert (done.returncode, again.read_bytes()) == (0, made.read_bytes()), done.stderr
    refused = contributed("upscale", picture_file, *model, "--mirror-times", "3")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--mirror-times: only with --mirror MODEL, which names the mirror" in refused.stderr
    assert "--mirror MODEL" in contributed("app", "--help").stdout
