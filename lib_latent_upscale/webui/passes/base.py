"""Passes: what may happen around and after a latent upscale, such as tile ControlNet and the x4 upscaler.

A new one is a subclass of `Pass` in a file of this folder, its panel included, and a row in `request.PASSES`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar

from PIL import Image

from lib_latent_upscale.options import Settings
from lib_latent_upscale.webui.errors import ArgumentError
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host.overrides import overridden
from lib_latent_upscale.webui.run.latent_upscale import NOTE_LABEL
from lib_latent_upscale.webui.ui.fields import PassPanel

__all__ = ["ModelCache", "Outcome", "OwnRun", "Pass", "Passes", "passes_of"]

_ATTRIBUTE = "latent_upscale_passes"
_MISSING = object()

_log = logging.getLogger(__name__)

ModelCache = dict[str, Any]
"""What passes hold from one generation to the next, such as a loaded model, each under its name; the script owns it."""


@dataclass(frozen=True)
class Outcome:
    """One finished picture of a pass."""

    picture: Image.Image
    infotext: Mapping[str, Any] = field(default_factory=dict)
    """Labels and values of this picture; those of `Pass.infotext` that are not among them are taken out of its text."""
    notes: Sequence[str] = ()
    """Whole sentences about what could not be done as asked."""


@dataclass(frozen=True)
class OwnRun:
    """A second run of the host, which starts from the finished result of the first and has the same size."""

    denoising_strength: float
    steps: int
    scheduler: str


class Pass:
    """A pass of one generation. It is made before any work, and then everything that can be checked is checked."""

    NAME: ClassVar[str]
    """Name that users see."""
    SETTINGS: ClassVar[type[Settings]]
    """Class of its settings, which has a name for the switch, too."""
    ENLARGES: ClassVar[bool] = False
    """Whether its pictures have another size than those before it."""

    def __init__(self, p: Any, values: Mapping[str, Any], kept: ModelCache) -> None:
        """Check what is asked for.

        Args:
            p: the host's processing object.
            values: arguments by their names in the API, others among them; absent ones are defaults.
            kept: what earlier generations have left.

        Raises:
            ValueError: says what was given, what is allowed and what to do.
        """
        raise NotImplementedError

    @classmethod
    def panel(cls, elem_id: Callable[[str], str]) -> PassPanel:
        """Build its controls, with the user's defaults; `elem_id` makes their ids. The host does it several times."""
        raise NotImplementedError

    @property
    def infotext(self) -> Mapping[str, Any]:
        """Labels and values of everything that was asked for, with which the pass can be run again."""
        raise NotImplementedError

    @property
    def own_run(self) -> OwnRun | None:
        """The run of its own that the pass asks for; all passes are then installed for that one only."""
        return None

    def installed(self) -> AbstractContextManager[None]:
        """For one run of the host on `p`: set up inside, gone outside."""
        return nullcontext()

    def finish(self, picture: Image.Image) -> Outcome:
        """What becomes of a picture that is otherwise finished, just before it is saved.

        `p.batch_index` is its place in the batch. An interrupt keeps the picture and is noted. What is raised here is
        noted, and the picture is kept.
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
        """Of all passes."""
        return {label: value for one in self._passes for label, value in one.infotext.items()}

    @property
    def own_run(self) -> OwnRun | None:
        """What `second_run` runs after the latent upscale; None where the passes belong to that itself."""
        return next((one.own_run for one in self._passes if one.own_run is not None), None)

    def check_within_one_run(self) -> None:
        """For a script that runs the host by itself.

        Raises:
            ArgumentError: a pass wants a run of its own.
        """
        if self.own_run is not None:
            raise ArgumentError("Latent Upscale: X/Y/Z plot runs no second pass; switch it off in the script's panel")

    @contextmanager
    def installed(self) -> Iterator[None]:
        """For one run: on `p` inside, gone outside; within `LatentUpscale.installed`, which keeps the infotext."""
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
        """Take off what `install` has set up; a second call does nothing."""
        self._installed.close()

    def finish(self, picture: Image.Image) -> Image.Image:
        """The picture after all passes; what was done to it is written where the host makes its infotext from."""
        self._forget_last()
        for one in self._passes:
            picture = self._finish(one, picture)
        self.size = picture.size
        return picture

    def first(self, count: int) -> Passes:
        """Only the first `count` passes."""
        return Passes(self._p, self._passes[:count])

    def ran(self, infotext: str) -> bool:
        """Whether a picture's infotext names all passes; one that failed is taken out of it."""
        return all(any(f"{label}: " in infotext for label in one.infotext) for one in self._passes)

    @property
    def hide_masks(self) -> bool:
        """Whether there are no masks beside the pictures: the host would compose them with pictures of two sizes."""
        composed = host.option("return_mask_composite") or host.option("save_mask_composite")
        return bool(composed) and any(one.ENLARGES for one in self._passes)

    def arrange_mask(self, shown: Any) -> None:
        """Leave out the mask where the host would fail with it."""
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
            earlier = self._p.extra_generation_params.get(NOTE_LABEL)
            self._write({NOTE_LABEL: " ".join(filter(None, [earlier, text]))})
        return done.picture

    def _write(self, entries: Mapping[str, Any]) -> None:
        extra = self._p.extra_generation_params
        for label, value in entries.items():
            self._before.setdefault(label, extra.get(label, _MISSING))
            extra[label] = value

    def _forget_last(self) -> None:
        """Take back what was written about the picture before: the host uses one dictionary for all."""
        extra = self._p.extra_generation_params
        for label, value in self._before.items():
            extra.pop(label, None) if value is _MISSING else extra.update({label: value})
        self._before.clear()


def passes_of(p: Any) -> Passes | None:
    """The passes that are installed on a processing object, if any."""
    return getattr(p, _ATTRIBUTE, None)
