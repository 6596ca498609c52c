"""`upscale --like made.png`: the settings of a picture that was made here or in a WebUI, unless a flag is given.

Whatever cannot be reused is logged before any work, a sentence each.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.method_files import file_of
from lib_latent_upscale.methods import other_weights
from lib_latent_upscale.options import Settings
from lib_latent_upscale.samplers import GENERATION_SAMPLERS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.settings import AUTOMATIC, TITLE, WEIGHTS_LABEL, UpscaleSettings
from lib_latent_upscale.standalone.commands.flags import attribute_of, attributes
from lib_latent_upscale.standalone.commands.passes import NONE, WITH_MODEL
from lib_latent_upscale.standalone.engine.generation import read_fields
from lib_latent_upscale.standalone.engine.infotext import Infotext, read_infotext
from lib_latent_upscale.standalone.engine.models import DEMO, model_name
from lib_latent_upscale.standalone.files.images import load_picture
from lib_latent_upscale.standalone.files.marks import MARK
from lib_latent_upscale.standalone.files.metadata import read_parameters
from lib_latent_upscale.standalone.files.settings import ShapeSettings
from lib_latent_upscale.tile_settings import TileSettings

__all__ = ["made_like"]

_log = logging.getLogger(__name__)

_PASSES: Mapping[str, type[Settings]] = {kind.MODEL_LABEL: kind for kind in WITH_MODEL}
"""Settings of the passes by the infotext label of their model."""

_TAKEN = frozenset({"Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Denoising strength", "Schedule type"})
_NAMES = frozenset({"Model hash", "Lora hashes", "TI hashes", "VAE hash", "Version", "User", "RNG", MARK})
"""Labels that have no effect on the picture or are read elsewhere."""
_WEBUI = frozenset({"Model hash", "Version"})
"""Labels that are only written by a WebUI."""
_LONGEST = 500
"""Characters of a message: an infotext may hold anything."""
_LORA = re.compile(r"<\w+:[^<>]*>")
_SCHEDULES = {schedule.label.casefold(): name for name, schedule in SCHEDULES.items()} | {AUTOMATIC: AUTOMATIC}
"""Our schedules by the WebUI's names."""


def made_like(arguments: argparse.Namespace, given: argparse.Namespace) -> argparse.Namespace:
    """The arguments of `upscale`, with the settings of the picture `--like` for flags that are not given.

    Args:
        arguments: with the defaults of all flags.
        given: the same arguments, but None for flags that are not given.

    Raises:
        InputError: the picture has no infotext, or it needs a model or file that is not given.
    """
    source: Path = arguments.like
    infotext = read_infotext(read_parameters(source))
    if "Steps" not in infotext.values:
        load_picture(source, smallest=1)  # its own error if this is not a picture
        raise InputError(
            f"{source}: it does not say how it was made; --like needs a picture made by this command or the WebUI."
        )
    explicit = {name: value for name, value in vars(given).items() if value is not None}
    reader = _Reader(infotext, explicit)
    try:
        found = reader.found()
    except InputError as error:
        raise InputError(f"{source}: {shorten(str(error), _LONGEST)}") from error
    for note in reader.notes:
        _log.warning("%s: %s", source, shorten(note, _LONGEST))
    return argparse.Namespace(**{**vars(arguments), **found, **explicit})


def _flags(kind: type[Settings], values: Mapping[str, str]) -> dict[str, Any]:
    """The settings in an infotext by argparse's names."""
    names = attributes(kind)
    return {names[name]: value for name, value in kind.read_infotext(values).items()}


@dataclass
class _Reader:
    """Reads arguments from an infotext, and notes what cannot be reused."""

    infotext: Infotext
    explicit: Mapping[str, Any]
    """The arguments that are given, by argparse's names."""
    notes: list[str] = field(default_factory=list)

    @property
    def values(self) -> Mapping[str, str]:
        return self.infotext.values

    def found(self) -> dict[str, Any]:
        """The arguments in the infotext, by argparse's names."""
        fields = read_fields(self.infotext)
        found: dict[str, Any] = {
            **{name: self._prompt(fields[name], name) for name in ("prompt", "negative_prompt")},
            **{name: fields[name] for name in ("steps", "cfg_scale", "seed") if name in fields},
            **({"denoise": fields["denoising_strength"]} if "denoising_strength" in fields else {}),
            **self._size(fields),
            **_flags(ShapeSettings, self.values),
            **self._upscale(),
            "model": self._model(),
        }
        for label, kind in _PASSES.items():
            found |= self._pass(kind, self.values.get(label, ""))
        self._note_others()
        return found

    def _prompt(self, text: str, name: str) -> str:
        """A prompt; the WebUI's without the names of LoRAs, which would be plain text here."""
        if name in self.explicit or _WEBUI.isdisjoint(self.values):
            return text
        networks = _LORA.findall(text)
        self.notes += [f"{network} in the prompt is left out: LoRAs are not supported here." for network in networks]
        return _LORA.sub("", text)

    def _size(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The size of the result; that of a txt2img picture is not used, since it was not upscaled to it."""
        if not {"size", "scale"}.isdisjoint(self.explicit) or "width" not in fields:
            return {}
        if "Denoising strength" not in self.values or any(label.startswith("Hires") for label in self.values):
            self.notes.append("it was made by txt2img, whose size is not used: give --scale or --size.")
            return {}
        return {"size": (fields["width"], fields["height"])}

    def _upscale(self) -> dict[str, Any]:
        """Sampler, schedule and the settings of the latent upscale."""
        found = _flags(UpscaleSettings, self.values)
        if not found:
            self.notes.append("it was made without Latent Upscale, so those settings come from the flags.")
        sampler, schedule = self._sampler()
        if sampler in GENERATION_SAMPLERS:
            found["sampler"] = sampler
        elif "sampler" not in self.explicit:
            self.notes.append(f"there is no sampler {sampler!r} here; choose another one with --sampler.")
        if found.get("scheduler", AUTOMATIC) == AUTOMATIC and schedule:
            if schedule.casefold() in _SCHEDULES:
                found["scheduler"] = _SCHEDULES[schedule.casefold()]
            elif "scheduler" not in self.explicit:
                self.notes.append(f"there is no schedule type {schedule!r} here; choose another one with --scheduler.")
        self._check_weights(found.get("method", ""))
        if "learned" in self.explicit:
            found.pop("method", None)
        return found

    def _sampler(self) -> tuple[str, str]:
        """Sampler and schedule type; older versions of the WebUI write both as one name, such as DPM++ 2M Karras."""
        named, schedule = self.values.get("Sampler", ""), self.values.get("Schedule type", "")
        before, _, last = named.rpartition(" ")
        if not schedule and before in GENERATION_SAMPLERS and last.casefold() in _SCHEDULES:
            return before, last
        return named, schedule

    def _check_weights(self, method: str) -> None:
        """Note if a method's weights are not those that made the picture.

        Raises:
            InputError: a file of the user's own made it, and none is given.
        """
        if "method" in self.explicit:
            return
        written, file = self.values.get(WEIGHTS_LABEL, ""), self.explicit.get("learned")
        if file is None and file_of(method):
            raise InputError(f"it was made with the latent upscaler {file_of(method)!r}: give its file with --learned.")
        if file is None or file.is_file():  # a missing one is an error later
            self.notes += other_weights(written, method, file)

    def _model(self) -> str:
        named, given = self.values.get("Model", ""), self.explicit.get("model")
        if given is not None:
            self._note_other("model", named, given)
        elif named != DEMO:
            raise InputError(f"it was made with the model {named or 'whose name is missing'}: give it with --model.")
        return given or DEMO

    def _note_other(self, what: str, named: str, given: str) -> None:
        if model_name(given) != named:
            self.notes.append(f"it was made with the {what} {named!r}, and {model_name(given)!r} is given.")

    def _pass(self, kind: type[Settings], named: str) -> dict[str, Any]:
        """The settings of a pass, if its model is given or is the demo model's."""
        flag = attribute_of(kind.MODEL_FLAG)
        if not named or self.explicit.get(flag) == NONE:
            return {}
        if flag in self.explicit:
            self._note_other(f"{kind.NAME} model", named, self.explicit[flag])
        elif (kind, named) != (TileSettings, DEMO):
            self.notes.append(f"the {kind.NAME} is left out: give its model {named!r} with {kind.MODEL_FLAG}.")
            return {}
        return {flag: DEMO, **_flags(kind, self.values)}

    def _note_others(self) -> None:
        """Note labels that have no meaning here, and noise that cannot be the same."""
        kinds: tuple[type[Settings], ...] = (UpscaleSettings, ShapeSettings, *_PASSES.values())
        known = {*_TAKEN, *_NAMES, *_PASSES, WEIGHTS_LABEL}.union(*(kind.labels().values() for kind in kinds))
        others = {label: value for label, value in self.values.items() if label not in known}
        if others.get("Script") == TITLE:
            del others["Script"]
        self.notes += [f"{label}: {value} has no counterpart here." for label, value in others.items()]
        if self.values.get("RNG") != "CPU":
            self.notes.append("its noise was drawn on a GPU, and is drawn on the CPU here: details differ.")
