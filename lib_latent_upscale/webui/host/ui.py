"""The controls that the host makes its own panels of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from modules.ui_common import create_refresh_button
from modules.ui_components import InputAccordion

__all__ = ["accordion", "add_refresh_button"]


def accordion(label: str, elem_id: str) -> Any:
    """An accordion with a checkbox in its head, like the host's "Refiner"; it is that checkbox, too."""
    return InputAccordion(False, label=label, elem_id=elem_id)


def add_refresh_button(control: Any, look_again: Callable[[], Mapping[str, Any]], elem_id: str) -> None:
    """A button beside `control` that gives it the values that `look_again` finds."""
    create_refresh_button(control, lambda: None, look_again, elem_id)
