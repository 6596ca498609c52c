"""install.py as the WebUI runs it: in a process of its own, here with an interpreter that has no packages.

pip is a double that writes what it was asked for and does what the test says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]

PIP = """
import json, os, pathlib, sys, time
arguments = sys.argv[1:]
with open(os.environ["PIP_CALLS"], "a") as file:
    file.write(json.dumps([arguments, os.environ.get("PIP_USER")]) + "\\n")
behaviour = os.environ.get("PIP_DOES", "install")
if behaviour == "offline":
    sys.stderr.write("WARNING: Retrying after connection broken by 'NewConnectionError'\\nERROR: No distribution\\n")
    sys.exit(1)
if behaviour == "full":
    sys.stderr.write("ERROR: Could not install packages due to an OSError: No space left on device\\n\\n")
    sys.exit(1)
target = pathlib.Path(arguments[arguments.index("--target") + 1])
files = {"diffusers/__init__.py": "__version__ = '0.31.0'\\n", "diffusers/models/unet.py": "# a model\\n"}
record = "".join(f"{name},sha256=x,{len(text)}\\n" for name, text in files.items())
files["diffusers-0.31.0.dist-info/METADATA"] = "Metadata-Version: 2.1\\nName: diffusers\\nVersion: 0.31.0\\n"
files["diffusers-0.31.0.dist-info/RECORD"] = record + "../../bin/diffusers-cli,sha256=x,9\\n"
if behaviour == "half":
    files.pop("diffusers/models/unet.py")
for name, text in files.items():
    path = target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
if behaviour == "killed":
    os.kill(os.getppid(), 9)
    os.kill(os.getpid(), 9)
"""

ASK = """
from lib_latent_upscale.webui.passes import x4_requirements as x4
before = x4.missing()
x4.make_importable()
try:
    import diffusers
    found = diffusers.__file__
except ImportError:
    found = None
import json, sys
print(json.dumps([before, found, str(x4.PACKAGES) == sys.path[-1]]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """An interpreter without any package."""
    folder = tmp_path_factory.mktemp("host") / "venv"
    venv.create(folder, symlinks=os.name != "nt", with_pip=False)
    return next(path for path in (folder / "bin/python", folder / "Scripts/python.exe") if path.exists())


class Host:
    """A WebUI's environment and the extension in its folder."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python = python
        self.extension = folder / "extensions" / "latent-upscale"
        self.packages = self.extension / "packages"
        self.site = folder / "site"
        self._calls = folder / "calls"
        (self.extension / "lib_latent_upscale" / "webui" / "passes").mkdir(parents=True)
        for name in ("install.py", "lib_latent_upscale/__init__.py", "lib_latent_upscale/webui/__init__.py",
                     "lib_latent_upscale/webui/passes/__init__.py",
                     "lib_latent_upscale/webui/passes/x4_requirements.py"):  # fmt: skip
            shutil.copy(ROOT / name, self.extension / name)
        self.brings("pip", main=PIP)

    def brings(self, name, version="", main=""):
        """Put a package among the host's own."""
        package = self.site / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "__main__.py").write_text(main)
        if version:
            info = self.site / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    def brings_what_every_webui_has(self):
        for name in ("transformers", "tokenizers", "safetensors", "huggingface_hub"):
            self.brings(name)

    def run(self, *arguments, **environment):
        """Run Python in the extension's folder, which is on `sys.path` as while the WebUI loads it."""
        paths = os.pathsep.join([str(self.site), str(self.extension)])
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "PIP_CALLS": str(self._calls), **environment}
        return subprocess.run(
            [self.python, *arguments],
            cwd=self.extension,
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def install(self, *arguments, **environment):
        return self.run(self.extension / "install.py", *arguments, **environment)

    def ask(self):
        """What is missing, where diffusers comes from then, and whether our own folder is the last of sys.path."""
        done = self.run("-c", ASK)
        assert done.returncode == 0, done.stderr
        missing, found, last = json.loads(done.stdout)
        return SimpleNamespace(missing=missing, found=Path(found) if found else None, last=last)

    @property
    def calls(self):
        return [json.loads(line) for line in self._calls.read_text().splitlines()] if self._calls.exists() else []

    @property
    def files(self):
        return sorted(path.relative_to(self.extension).as_posix() for path in self.extension.iterdir())


FILES = ["install.py", "lib_latent_upscale"]


@pytest.fixture
def host(python, tmp_path):
    host = Host(python, tmp_path)
    host.brings_what_every_webui_has()
    return host


def test_one_package_without_dependencies_goes_into_the_extensions_own_folder(host):
    before = sorted(host.site.rglob("*"))
    done = host.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert "installing diffusers 0.31.0" in done.stdout
    [(arguments, user)] = host.calls
    assert arguments[0] == "install"
    assert [argument for argument in arguments[1:] if "==" in argument] == ["diffusers==0.31.0"]
    assert {"--no-deps", "--only-binary=:all:", "--target"} <= set(arguments)
    assert user == "0"  # or a user's own "user = true" would refuse the folder
    assert host.files == [*FILES, "packages"]
    assert sorted(path for path in host.site.rglob("*") if "__pycache__" not in path.parts) == before
    asked = host.ask()
    assert asked.missing is None
    assert asked.found == host.packages / "diffusers" / "__init__.py"
    assert asked.last


def test_the_next_start_does_nothing(host):
    host.install()
    done = host.install()
    assert (done.returncode, done.stdout, len(host.calls)) == (0, "", 1)


def test_a_host_that_has_diffusers_keeps_it_and_nothing_is_installed(host):
    host.brings("diffusers", "0.32.2")
    done = host.install()
    assert (done.returncode, done.stdout, host.calls, host.files) == (0, "", [], FILES)
    asked = host.ask()
    assert asked.missing is None
    assert asked.found == host.site / "diffusers" / "__init__.py"


def test_a_hosts_diffusers_comes_before_ours(host):
    """Another extension installed it later."""
    host.install()
    host.brings("diffusers", "0.34.0")
    assert host.ask().found == host.site / "diffusers" / "__init__.py"


@pytest.mark.parametrize("version", ["0.30.3", "0.9.0"])
def test_a_diffusers_that_is_too_old_is_left_alone_and_said(host, version):
    host.brings("diffusers", version)
    host.install()
    assert (host.calls, host.files) == ([], FILES)
    assert f"0.31.0 or newer; this WebUI has {version}" in host.ask().missing


def test_a_package_that_every_webui_has_is_named_where_it_is_missing(python, tmp_path):
    host = Host(python, tmp_path)
    host.install()
    assert "needs the Python package transformers" in host.ask().missing


def test_a_folder_called_diffusers_is_no_package(host):
    (host.site / "diffusers").mkdir()
    assert host.install().returncode == 0
    assert len(host.calls) == 1


@pytest.mark.parametrize(
    ("does", "said"),
    [("offline", "the package index cannot be reached"), ("full", "No space left on device"), ("half", "not complete")],
)
def test_a_failure_is_said_and_never_stops_the_webui(host, does, said):
    done = host.install(PIP_DOES=does)
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
    assert host.files == [*FILES, "packages"]
    assert [path.name for path in host.packages.iterdir()] == ["failure.txt"]
    missing = host.ask().missing
    assert said in missing
    assert f'"{host.python}" "{host.extension / "install.py"}" --now' in missing


def test_after_a_failure_starts_are_not_held_up_for_a_day(host):
    host.install(PIP_DOES="offline")
    assert host.install().stdout == ""
    assert len(host.calls) == 1
    yesterday = time.time() - 25 * 60 * 60
    os.utime(host.packages / "failure.txt", (yesterday, yesterday))
    host.install()
    assert len(host.calls) == 2
    assert host.ask().missing is None


def test_a_person_can_try_again_at_once(host):
    host.install(PIP_DOES="offline")
    assert host.install("--now", PIP_DOES="offline").returncode == 1
    assert host.install("--now").returncode == 0
    assert host.ask().missing is None


def test_an_installation_that_was_cut_short_is_repaired(host):
    host.install()
    (host.packages / "diffusers" / "models" / "unet.py").write_text("")
    assert "not installed yet" in host.ask().missing
    host.install()
    assert host.ask().missing is None
    assert len(host.calls) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_start_that_was_killed_leaves_nothing_that_counts(host):
    host.install(PIP_DOES="killed")
    assert "not installed yet" in host.ask().missing
    host.install()
    assert host.ask().missing is None
    assert host.files == [*FILES, "packages"]


def test_without_pip_the_webui_starts(host):
    shutil.rmtree(host.site / "pip")
    done = host.install()
    assert (done.returncode, done.stderr) == (0, "")
    assert "No module named pip" in host.ask().missing


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="rights of a folder")
def test_a_folder_without_the_right_to_write_is_said(host):
    host.extension.chmod(0o500)
    try:
        done = host.install()
        assert (done.returncode, done.stderr, host.calls) == (0, "", [])
        assert "could not be installed" in done.stdout
    finally:
        host.extension.chmod(0o700)


def test_skip_install_is_obeyed(host):
    assert host.install(COMMANDLINE_ARGS="--xformers --skip-install").stdout == ""
    assert (host.calls, host.files) == ([], FILES)
    assert "not installed yet" in host.ask().missing
    host.install("--now", COMMANDLINE_ARGS="--skip-install")
    assert len(host.calls) == 1


def test_skip_install_on_the_hosts_command_line_is_obeyed(host):
    """`python launch.py --skip-install`, and then an extension is added on the host's page."""
    psutil = host.site / "psutil.py"
    psutil.write_text(
        "class Error(Exception): pass\n"
        "class Process:\n"
        "    def __init__(self, *line): self.line = line\n"
        "    def cmdline(self): return list(self.line)\n"
        "    def parents(self): return [Process('sh', '-c', 'x'), Process('python', 'launch.py', '--skip-install')]\n"
    )
    host.install()
    assert host.calls == []


def test_the_hosts_package_index_is_used(host):
    host.install(INDEX_URL="https://mirror.example/simple")
    [(arguments, _)] = host.calls
    assert arguments[arguments.index("--index-url") + 1] == "https://mirror.example/simple"


def test_git_sees_nothing_of_it():
    ignored = (ROOT / ".gitignore").read_text("utf-8").splitlines()
    assert {"/packages/", "/packages-*/"} <= set(ignored)


def test_nothing_is_imported_to_find_out(host):
    host.install()
    done = host.run("-c", "import sys; from lib_latent_upscale.webui.passes.x4_requirements import missing;"
                    "print(missing(), sorted({'torch', 'diffusers', 'transformers'} & set(sys.modules)))")  # fmt: skip
    assert done.stdout == "None []\n"
