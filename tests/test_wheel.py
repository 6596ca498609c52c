"""An ordinary installation, away from the repository: the main job works, and nothing that it needs is missing."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("lib_latent_upscale", "pyproject.toml", "README.md", "LICENSE")


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that no old build beside the sources can help."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet")
    run(*pip, str(source), "-w", str(target))
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """`latent-upscale` of a fresh environment that has the wheel; what it depends on is shared with this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "--quiet")
    run(*pip, str(wheel))
    site = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    (Path(site) / "shared.pth").write_text(sysconfig.get_path("purelib"))  # its packages come after the wheel's
    return scripts / f"latent-upscale{'.exe' if os.name == 'nt' else ''}"


def test_every_file_of_the_package_that_is_no_source_is_in_the_wheel(wheel, tmp_path):
    shutil.unpack_archive(wheel, tmp_path, "zip")
    package = ROOT / "lib_latent_upscale"
    wanted = {
        path.relative_to(ROOT) for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    found = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert not wanted - found


def test_the_main_job_works_anywhere(command, tmp_path):
    Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 50).save(tmp_path / "small.png")
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    run(str(command), "compare", "small.png", "--steps", "1", "-o", "sheet.png", "--quiet", cwd=tmp_path, env=quiet)
    assert {path.name for path in tmp_path.iterdir()} == {"small.png", "sheet.png", "sheet.json", "sheet.html"}
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 3 * 400
