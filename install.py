"""Runs at every start of the WebUI, in a process of its own: provides diffusers, which the x4 upscaler needs.

    python install.py          as the WebUI runs it: after a failure, not again for a day
    python install.py --now    at once, also after a failure and in spite of --skip-install

Where the host has no diffusers, that one package goes into the folder "packages" beside this file, without
dependencies, and nothing of the host's changes. A failure never stops the WebUI: it is said here and in the panel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib_latent_upscale.webui.passes.x4_requirements import FAILURE, PACKAGES, VERSION, host_has_diffusers, is_installed

NOW = "--now"
SKIP = "--skip-install"
PATIENCE = 24 * 60 * 60
"""Seconds after a failure in which the WebUI starts without another attempt."""
TIME_LIMIT = 120
"""Seconds for the whole of pip's work on 3 MB."""
OPTIONS = (
    "--no-deps", "--only-binary=:all:", "--prefer-binary", "--no-compile", "--no-input", "--quiet",
    "--disable-pip-version-check", "--retries=1", "--timeout=10",
)  # fmt: skip


class InstallError(Exception):
    """pip ran and failed, or left something incomplete."""


def main() -> int:
    """Install if that is needed; the exit code is 1 only with --now, never for the WebUI."""
    if not is_wanted():
        return 0
    say(f"installing diffusers {VERSION} for the x4 upscaler, in the extension's own folder")
    try:
        install()
    except (InstallError, OSError, subprocess.SubprocessError) as error:
        note(str(error))
        return int(NOW in sys.argv)
    return 0


def is_wanted() -> bool:
    """Whether to install: the host has no diffusers, ours is not whole, and nothing speaks against an attempt."""
    if host_has_diffusers() or is_installed():
        return False
    return NOW in sys.argv or not (failed_lately() or is_skipped())


def failed_lately() -> bool:
    """Whether an attempt failed less than a day ago."""
    try:
        return 0 <= time.time() - FAILURE.stat().st_mtime < PATIENCE
    except OSError:
        return False


def is_skipped() -> bool:
    """Whether the WebUI was started with --skip-install.

    It then runs no install.py when it starts, but still that of an extension added on its page
    (`ui_extensions.install_extension_from_url`). webui-user puts arguments into COMMANDLINE_ARGS; others stand on the
    command line of the WebUI, which is above this process.
    """
    return SKIP in os.environ.get("COMMANDLINE_ARGS", "").split() or any(SKIP in line for line in command_lines())


def command_lines() -> list[list[str]]:
    """Command lines of the processes above this one, as far as they can be seen."""
    try:
        import psutil  # type: ignore[import-untyped, unused-ignore]
    except ImportError:
        return []
    try:
        return [process.cmdline() for process in psutil.Process().parents()]
    except (OSError, psutil.Error):
        return []


def install() -> None:
    """Put diffusers into the extension's folder, whole or not at all."""
    for leftover in PACKAGES.parent.glob(f"{PACKAGES.name}-*"):  # of an attempt that was cut short
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{PACKAGES.name}-", dir=PACKAGES.parent) as place:
        folder = Path(place) / PACKAGES.name
        run_pip(folder)
        if not is_installed(folder):
            raise InstallError("what pip installed is not complete")
        shutil.rmtree(PACKAGES, ignore_errors=True)
        folder.replace(PACKAGES)


def run_pip(folder: Path) -> None:
    """Let pip put diffusers into `folder`; InstallError says why it could not."""
    command = [sys.executable, "-m", "pip", "install", *OPTIONS, f"diffusers=={VERSION}", "--target", str(folder)]
    if index := os.environ.get("INDEX_URL"):  # the host's own, as in its `launch_utils.run_pip`
        command += ["--index-url", index]
    done = subprocess.run(
        command,
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIME_LIMIT,
        env={**os.environ, "PIP_USER": "0"},  # the user's "--user" and our "--target" exclude each other
    )
    if done.returncode != 0:
        raise InstallError(reason(done.stderr))


def reason(output: str) -> str:
    """What to say of pip's error messages."""
    if "connection" in output.lower():
        return "the package index cannot be reached"
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")] or output.splitlines()[-1:]
    return errors[-1].removeprefix("ERROR:").strip() if errors else "pip failed and said nothing"


def note(error: str) -> None:
    """Say why it failed, and keep it for the panel."""
    say(f"diffusers could not be installed ({error}). Everything but the x4 upscaler works; its panel says what to do.")
    try:
        PACKAGES.mkdir(exist_ok=True)
        FAILURE.write_text(error, "utf-8")
    except OSError:  # a folder without the right to write: the next attempt ends at once, too
        return


def say(text: str) -> None:
    """Write into the WebUI's window."""
    sys.stdout.write(f"Latent Upscale: {text}\n")


if __name__ == "__main__":
    sys.exit(main())
