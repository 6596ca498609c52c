"""What the adapter refuses."""

from __future__ import annotations

from lib_latent_upscale.options import SettingsError

__all__ = ["ArgumentError", "refused"]


class ArgumentError(ValueError):
    """Something in the call is not allowed; the host's API answers with `status_code` and `detail`."""

    def __init__(self, message: str, on_page: str | None = None) -> None:
        """The sentence for callers of the API, and one for the page, where controls are called by their labels."""
        super().__init__(message)
        self.status_code = 422
        self.detail = message
        self.on_page = message if on_page is None else on_page


def refused(error: ValueError) -> ArgumentError:
    """What a check has said, as an answer of the script."""
    if isinstance(error, SettingsError):
        return ArgumentError(f"Latent Upscale: {error.in_call}", f"Latent Upscale: {error.on_page}")
    return ArgumentError(f"Latent Upscale: {error}")
