"""What a call runs: one generation, one with a second run, or a comparison of several."""

from __future__ import annotations

from typing import Any

from lib_latent_upscale.webui.compare.run import compare
from lib_latent_upscale.webui.passes.base import ModelCache
from lib_latent_upscale.webui.request import Request
from lib_latent_upscale.webui.run.latent_upscale import LatentUpscale
from lib_latent_upscale.webui.run.second_run import generate

__all__ = ["dispatch", "prepare"]


def dispatch(p: Any, request: Request, kept: ModelCache) -> Any:
    """Run a request on the host's processing object; returns one `Processed` with everything.

    Raises:
        ArgumentError: something that is requested is not allowed; nothing has run then.
    """
    if request.comparison.compare:
        return compare(p, request, kept)
    return generate(p, LatentUpscale(p, request.settings), request.passes(p, kept))


def prepare(p: Any, request: Request, kept: ModelCache) -> None:
    """Install a request on a processing object that another script runs, such as X/Y/Z plot.

    Raises:
        ArgumentError: it is not allowed, or needs runs of its own; nothing is installed then.
    """
    upscale, passes = LatentUpscale(p, request.settings), request.passes(p, kept)
    passes.check_within_one_run()
    upscale.install()
    passes.install()
