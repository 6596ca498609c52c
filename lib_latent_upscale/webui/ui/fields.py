"""What the accordions of all passes have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from lib_latent_upscale.settings import INFOTEXT_LABELS

__all__ = ["PassPanel", "pasted_settings"]

Pasted = Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class PassPanel:
    """The controls of a pass, one per name in its `FIELDS`."""

    controls: Sequence[Any]
    """What is handed to the script's `run`."""
    infotext_fields: Sequence[tuple[Any, Pasted]]
    """How a pasted infotext sets them: on with all settings where the pass has run, off where it has not."""


def pasted_settings(
    kind: Any, model_label: str, labels: Sequence[tuple[str, str]], switch: Any, model: Any, controls: Mapping[str, Any]
) -> list[tuple[Any, Pasted]]:
    """`PassPanel.infotext_fields` of a pass whose infotext names its model under `model_label`.

    Args:
        kind: dataclass of the settings, with `from_infotext`.
        model_label: where the infotext names the model.
        labels: (field, label) of the settings.
        switch: the checkbox of the accordion.
        model: the dropdown of models.
        controls: the control of each field.
    """

    def is_on(infotext: Mapping[str, Any]) -> bool | None:
        ours = any(label in infotext for _, label in INFOTEXT_LABELS)
        return model_label in infotext if ours else None  # the host leaves a control alone for which None comes back

    def named(infotext: Mapping[str, Any]) -> Any:
        return gr.update(value=infotext[model_label]) if model_label in infotext else None

    def value(field: str, label: str) -> Pasted:
        def pasted(infotext: Mapping[str, Any]) -> Any:
            if model_label not in infotext:
                return None
            given = {label: infotext[label]} if label in infotext else {}
            return gr.update(value=getattr(kind.from_infotext(given), field))

        return pasted

    return [(switch, is_on), (model, named), *((controls[field], value(field, label)) for field, label in labels)]
