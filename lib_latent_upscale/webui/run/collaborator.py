"""What others may do within a latent upscale: a comparison shares encoded pictures, a second run keeps the labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_latent_upscale.webui.host.processing import Encode

__all__ = ["Collaborator"]


class Collaborator:
    """Takes part in one `LatentUpscale`; what a subclass does not say stays as it is."""

    def infotext(self, written: Mapping[str, Any]) -> Mapping[str, Any]:
        """The labels that are written in place of these."""
        return written

    def encode(self, encode: Encode) -> Encode:
        """What encodes in place of the host's own encode."""
        return encode

    def prepared(self, p: Any) -> None:
        """The host's `init` is done, and the sampler is set up."""

    def sampling(self, p: Any) -> None:
        """The host's `sample` is about to begin."""

    def sampled(self, p: Any, calls: int | None) -> None:
        """The host's `sample` has ended; it has run the model so often, where that can be counted."""
