"""The error that the script raises for calls that are not allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.options import SettingsError
from lib_latent_upscale.settings import TITLE

__all__ = ["PREFIX", "ArgumentError", "refusing"]

PREFIX = f"{TITLE}: "
"""Before our messages, which a WebUI shows among those of other extensions."""


class ArgumentError(InputError):
    """Something in the call is not allowed; the host's API answers with `status_code` and `detail`."""

    def __init__(self, message: str, on_page: str | None = None) -> None:
        """Set both messages: for callers of the API, and for the page, where controls are called by their labels."""
        super().__init__(message)
        self.status_code = 422
        self.detail = message
        self.on_page = message if on_page is None else on_page

    def for_page(self) -> ArgumentError:
        """The same error with the message for the page."""
        return ArgumentError(self.on_page)


@contextmanager
def refusing() -> Iterator[None]:
    """Inside, errors of checks become errors of the script; also a decorator.

    Raises:
        ArgumentError: instead of any ValueError.
    """
    try:
        yield
    except ArgumentError:
        raise
    except ValueError as error:
        raise _answer(error) from None


def _answer(error: ValueError) -> ArgumentError:
    if isinstance(error, SettingsError):
        return ArgumentError(f"{PREFIX}{error.in_call}", f"{PREFIX}{error.on_page}")
    return ArgumentError(f"{PREFIX}{error}")
