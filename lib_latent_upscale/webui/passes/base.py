"""Passes: additions to a latent upscale, such as tile ControlNet and the x4 upscaler.

A new one is a subclass of `Pass`, with its panel, in a file of this folder, and a row in `request.PASSES`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

from PIL import Image

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.options import Settings
from lib_latent_upscale.webui.errors import refusing
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host.overrides import overridden
from lib_latent_upscale.webui.run.notes import NOTE_LABEL, joined_notes
from lib_latent_upscale.webui.ui.fields import PassPanel

__all__ = ["ModelCache", "Outcome", "OwnRun", "Pass", "Passes", "passes_of"]

_ATTRIBUTE = "latent_upscale_passes"
_MISSING = object()

_log = logging.getLogger(__name__)

ModelCache = dict[str, Any]
"""What passes keep for the next generation, such as a loaded model, by their names; the script owns it."""


@dataclass(frozen=True)
class Outcome:
    """One finished picture of a pass."""

    picture: Image.Image
    infotext: Mapping[str, Any] = field(default_factory=dict)
    """Infotext labels and values of this picture; labels of `Pass.infotext` that are missing here are removed."""
    notes: Sequence[str] = ()
    """Sentences about what could not be done."""


@dataclass(frozen=True)
class OwnRun:
    """A second run of the host on the finished result of the first, at the same size."""

    denoising_strength: float
    steps: int
    scheduler: str


class Pass:
    """A pass of one generation. It is created, and everything possible is checked, before any work."""

    NAME: ClassVar[str]
    """Name that users see."""
    SETTINGS: ClassVar[type[Settings]]
    """Class of its settings."""
    ENLARGES: ClassVar[bool] = False
    """Whether its pictures are larger than those before it."""

    def __init__(self, p: Any, values: Mapping[str, Any], kept: ModelCache) -> None:
        """Check the arguments.

        Args:
            p: the host's processing object.
            values: all arguments by their names in the API; missing ones have their defaults.
            kept: what earlier generations have kept.

        Raises:
            ValueError: says what was given, what is allowed and what to do.
        """
        raise NotImplementedError

    @classmethod
    def panel(cls, elem_id: Callable[[str], str]) -> PassPanel:
        """Build its controls with the user's defaults; `elem_id` makes their ids. The host calls this several times."""
        raise NotImplementedError

    @property
    def infotext(self) -> Mapping[str, Any]:
        """Infotext labels and values with which the pass can be run again."""
        raise NotImplementedError

    @property
    def own_run(self) -> OwnRun | None:
        """The run of its own that the pass needs, if any; then all passes are installed only for that run."""
        return None

    def installed(self) -> AbstractContextManager[None]:
        """Inside, the pass is set up for one run of the host on `p`."""
        return nullcontext()

    def finish(self, picture: Image.Image) -> Outcome:
        """Process a picture that is otherwise finished, just before it is saved.

        `p.batch_index` is its index in the batch. If this is interrupted or raises an exception, that is noted, and the
        picture is kept as it is.
        """
        return Outcome(picture, self.infotext)


class Passes:
    """The passes of one run of the host on `p`, in their order."""

    def __init__(self, p: Any, passes: Sequence[Pass]) -> None:
        self.size: tuple[int, int] | None = None
        """(width, height) of the last finished picture."""
        self._p = p
        self._passes = passes
        self._before: dict[str, Any] = {}
        self._installed = ExitStack()

    def __len__(self) -> int:
        return len(self._passes)

    @property
    def names(self) -> list[str]:
        return [one.NAME for one in self._passes]

    @property
    def infotext(self) -> Mapping[str, Any]:
        """Infotext labels and values of all passes."""
        return {label: value for one in self._passes for label, value in one.infotext.items()}

    @property
    def own_run(self) -> OwnRun | None:
        """The run after the latent upscale that a pass needs; None if all passes belong to the upscale itself."""
        return next((one.own_run for one in self._passes if one.own_run is not None), None)

    @refusing()
    def check_within_one_run(self) -> None:
        """Check that the passes can be used in a script that runs the host itself.

        Raises:
            ArgumentError: a pass needs a run of its own.
        """
        if self.own_run is not None:
            raise InputError("X/Y/Z plot runs no second pass; switch it off in the script's panel")

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Inside, the passes are installed on `p` for one run. To be used inside `LatentUpscale.installed`."""
        try:
            self.install()
            yield
        finally:
            self.uninstall()

    def install(self) -> None:
        """Set up all passes on `p`."""
        self._before.clear()
        for one in self._passes:
            self._p.extra_generation_params.update(one.infotext)  # the host keeps it in params.txt before the end
            self._installed.enter_context(one.installed())
        self._installed.enter_context(overridden(self._p, {_ATTRIBUTE: self}))

    def uninstall(self) -> None:
        """Remove what `install` has set up; a second call does nothing."""
        self._installed.close()

    def finish(self, picture: Image.Image) -> Image.Image:
        """The picture after all passes; their labels are written where the host reads its infotext from."""
        self._forget_last()
        for one in self._passes:
            picture = self._finish(one, picture)
        self.size = picture.size
        return picture

    def first(self, count: int) -> Passes:
        """Only the first `count` passes."""
        return Passes(self._p, self._passes[:count])

    def ran(self, infotext: str) -> bool:
        """Whether a picture's infotext has all passes; one that failed is not in it."""
        return all(any(f"{label}: " in infotext for label in one.infotext) for one in self._passes)

    @property
    def hide_masks(self) -> bool:
        """Whether masks are left out: the host would compose them with pictures of another size."""
        composed = host.option("return_mask_composite") or host.option("save_mask_composite")
        return bool(composed) and any(one.ENLARGES for one in self._passes)

    def arrange_mask(self, shown: Any) -> None:
        """Leave out the mask if the host would fail with it."""
        if self.hide_masks and shown.mask_for_overlay is not None:
            shown.mask_for_overlay = None
            host.comment(self._p, "mask and masked composite are left out, since the picture is enlarged.")

    def _finish(self, one: Pass, picture: Image.Image) -> Image.Image:
        try:
            done = one.finish(picture)
        except Exception as error:  # noqa: BLE001  # the host swallows what a hook raises: nobody would know
            _log.warning("%s failed", one.NAME, exc_info=True)
            done = Outcome(picture, notes=[f"the {one.NAME} failed and the picture before it is kept: {error}"])
        self._write({**dict.fromkeys(one.infotext), **done.infotext})  # the host leaves out what is None
        for text in done.notes:
            host.comment(self._p, text)
            self._write({NOTE_LABEL: joined_notes(self._p.extra_generation_params.get(NOTE_LABEL), text)})
        return done.picture

    def _write(self, entries: Mapping[str, Any]) -> None:
        extra = self._p.extra_generation_params
        for label, value in entries.items():
            self._before.setdefault(label, extra.get(label, _MISSING))
            extra[label] = value

    def _forget_last(self) -> None:
        """Remove what was written about the previous picture: the host uses one dictionary for all."""
        extra = self._p.extra_generation_params
        for label, value in self._before.items():
            extra.pop(label, None) if value is _MISSING else extra.update({label: value})
        self._before.clear()


def passes_of(p: Any) -> Passes | None:
    """The passes that are installed on a processing object, if any."""
    return getattr(p, _ATTRIBUTE, None)
