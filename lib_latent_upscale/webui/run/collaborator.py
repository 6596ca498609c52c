"""How other code takes part in a latent upscale: a comparison shares encoded pictures, a second run keeps labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_latent_upscale.webui.host.processing import Encode

__all__ = ["Collaborator"]


class Collaborator:
    """Takes part in one `LatentUpscale`. By default its methods change nothing."""

    def infotext(self, written: Mapping[str, Any]) -> Mapping[str, Any]:
        """The infotext labels and values that are written instead of `written`."""
        return written

    def encode(self, encode: Encode) -> Encode:
        """The function that encodes instead of the host's own."""
        return encode

    def prepared(self, p: Any) -> None:
        """Called when the host's `init` is finished and the sampler is set up."""

    def sampling(self, p: Any) -> None:
        """Called before the host's `sample`."""

    def sampled(self, p: Any, calls: int | None) -> None:
        """Called after the host's `sample`; `calls` says how often it ran the model, None if that is not known."""
