"""The host's own kinds of controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modules.ui_common import create_refresh_button
from modules.ui_components import InputAccordion

__all__ = ["accordion", "add_refresh_button"]


def accordion(label: str, elem_id: str) -> Any:
    """An accordion with a checkbox in its head, like the host's "Refiner"; its value is that of the checkbox."""
    return InputAccordion(False, label=label, elem_id=elem_id)


def add_refresh_button(control: Any, look_again: Callable[[], Mapping[str, Any]], elem_id: str) -> None:
    """A button next to `control` that updates it with the result of `look_again`."""
    create_refresh_button(control, lambda: None, look_again, elem_id)
