"""The host's run with a latent upscale, and a second run that denoises the finished result again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.host import machine as host_machine
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host import saving
from lib_latent_upscale.webui.host.geometry import STRETCH, picture_mode
from lib_latent_upscale.webui.host.overrides import overridden
from lib_latent_upscale.webui.passes.base import OwnRun, Passes
from lib_latent_upscale.webui.run.collaborator import Collaborator
from lib_latent_upscale.webui.run.latent_upscale import LatentUpscale
from lib_latent_upscale.webui.run.notes import NOTE_LABEL, joined_notes

__all__ = ["generate"]

_ORIGINAL = 1
"""The value of `inpainting_fill` that starts from the picture."""

_log = logging.getLogger(__name__)


def generate(p: Any, upscale: LatentUpscale, passes: Passes) -> Any:
    """Run the host on `p` with a latent upscale and passes; returns its `Processed`.

    Raises:
        ArgumentError: something that is requested is not allowed.
    """
    if passes.own_run is not None:
        return _run_twice(p, upscale, passes, passes.own_run)
    with upscale.installed(), passes.installed():
        return host.generate(p)


def _run_twice(p: Any, upscale: LatentUpscale, passes: Passes, run: OwnRun) -> Any:
    """The latent upscale, then the run of a pass for each of its pictures; one `Processed` with all of them.

    Each picture has its own second run, since a pass may take one picture only, and so that it can be made again alone.
    If a second run is interrupted or fails, the picture of the first is kept and saved, with a note.
    """
    return _Runs(p, upscale, passes, run).processed()


class _SecondRun(Collaborator):
    """Keeps the infotext of the first run in the second one."""

    def __init__(self, written: Mapping[str, Any]) -> None:
        self._written = written

    def infotext(self, written: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ARG002
        return self._written

    def prepared(self, p: Any) -> None:
        self._write(p)

    def sampling(self, p: Any) -> None:
        p.rng.next()  # skip the first run's noise: the same noise twice would amplify its grain

    def sampled(self, p: Any, calls: int | None) -> None:  # noqa: ARG002
        self._write(p)

    def _write(self, p: Any) -> None:
        """Write the first run's labels again: the host has replaced steps, strength and mask by those of this run."""
        p.extra_generation_params.update({label: v for label, v in self._written.items() if label != NOTE_LABEL})


@dataclass(frozen=True)
class _Shot:
    """One picture of the first run, with the host's data about it."""

    picture: Image.Image
    infotext: str
    prompt: str
    negative_prompt: str
    seed: int
    subseed: int
    whole: bool
    """Whether it was finished, not interrupted."""


@dataclass(frozen=True)
class _Final:
    """One picture of the result."""

    picture: Image.Image
    infotext: str
    extras: Sequence[Image.Image] = field(default=())
    """Masks, and pictures that other scripts have added."""


class _Runs:
    def __init__(self, p: Any, upscale: LatentUpscale, passes: Passes, run: OwnRun) -> None:
        self._p = p
        self._upscale = upscale
        self._passes = passes
        self._run = run
        self._mode = picture_mode(p.resize_mode)
        self._only_masked = p.inpaint_full_res  # the host's `init` switches it off where the mask is empty
        self._written: dict[str, Any] = {}

    def processed(self) -> Any:
        host_machine.add_jobs(self._p, self._p.batch_size * self._p.n_iter * len(self._passes))
        first = self._first()
        shots = self._shots(first)
        finals = [self._final(shot, index, len(shots)) for index, shot in enumerate(shots)]
        host_machine.announce(None)
        return self._together(first, finals)

    # first run

    def _first(self) -> Any:
        p = self._p
        with overridden(p, {"do_not_save_samples": True, "do_not_save_grid": True}), self._upscale.installed():
            processed = host.generate(p)
            self._written = {
                "Schedule type": p.scheduler,
                **p.extra_generation_params,
                "Steps": p.steps,
                "Denoising strength": p.denoising_strength,
                "Init image hash": getattr(p, "init_img_hash", None),
            }
        return processed

    def _shots(self, processed: Any) -> list[_Shot]:
        p = self._p
        pictures, infotexts = host.own_pictures(p, processed)
        whole = len(pictures) - p.batch_size * bool(host_machine.stopped())
        texts = zip(p.all_prompts, p.all_negative_prompts, p.all_seeds, p.all_subseeds, strict=False)
        return [
            _Shot(picture, infotext, *text, index < whole)
            for index, (picture, infotext, text) in enumerate(zip(pictures, infotexts, texts, strict=False))
        ]

    # second runs

    def _final(self, shot: _Shot, index: int, count: int) -> _Final:
        if host_machine.stopped() or host_machine.ended():
            return self._kept(shot, f"was left out, since the generation was {host_machine.stopped() or 'stopped'}")
        host_machine.announce(f"Second pass, picture {index + 1} of {count}:")
        try:
            processed = self._second(shot)
        except host_machine.failures() as error:
            _log.warning("the second pass failed", exc_info=True)
            return self._kept(shot, f"failed: {str(error).rstrip('.')}")
        if host_machine.stopped():
            stopped = host_machine.stopped()
            host_machine.forget_skip()
            return self._kept(shot, f"was {stopped}")
        own, infotexts = host.own_pictures(self._p, processed)
        others = [picture for picture in processed.images if all(picture is not one for one in own)]
        return _Final(own[0], infotexts[0], others)

    def _second(self, shot: _Shot) -> Any:
        p = self._p
        with overridden(p, self._values(shot)):
            settings = UpscaleSettings("nearest-exact", scheduler=self._run.scheduler)
            upscale = LatentUpscale(p, settings, _SecondRun(self._written))
            with upscale.installed(), self._passes.installed():
                return host.generate(p)

    def _values(self, shot: _Shot) -> dict[str, Any]:
        """Attributes of `p` that are different in the second run of a picture."""
        p = self._p
        width, height = self._upscale.size
        factor = max(width / p.init_images[0].width, height / p.init_images[0].height)
        values = {
            "init_images": [shot.picture],
            "resize_mode": STRETCH,
            "denoising_strength": self._run.denoising_strength,
            "steps": self._run.steps,
            "batch_size": 1,
            "n_iter": 1,
            "prompt": shot.prompt,
            "negative_prompt": shot.negative_prompt,
            "styles": [],
            "seed": shot.seed,
            "subseed": shot.subseed,
            "do_not_save_grid": True,
            **({"extra_result_images": []} if hasattr(p, "extra_result_images") else {}),  # Forge's, of all runs
        }
        if p.image_mask is None:
            return values
        return {
            **values,
            "image_mask": host.enlarged(host.binary_mask(p), self._upscale.size, self._mode).convert("L"),
            **host.blurred(p, factor),
            "inpaint_full_res": self._only_masked,
            "inpaint_full_res_padding": round(p.inpaint_full_res_padding * factor),
            "inpainting_fill": _ORIGINAL,
        }

    def _kept(self, shot: _Shot, why: str) -> _Final:
        """A picture of the first run as a final one; saved here, since the first run saves nothing."""
        note = f"the second pass {why}; this is the picture before it."
        host.comment(self._p, note)
        notes = joined_notes(self._written.get(NOTE_LABEL), note)
        infotext = saving.with_label(shot.infotext, NOTE_LABEL, notes)
        saving.write_infotext(shot.picture, infotext)
        wanted = host.option("samples_save") and not self._p.do_not_save_samples
        if wanted and (shot.whole or host.option("save_incomplete_images")):
            saving.save(shot.picture, self._p, shot.seed, shot.prompt, infotext)
        return _Final(shot.picture, infotext)

    # result

    def _together(self, first: Any, finals: Sequence[_Final]) -> Any:
        """The first run's `Processed` with the pictures of the second: a grid, the pictures, masks and others."""
        grid = self._grid(first, finals)
        result = copy(first)
        result.images = [*grid, *(final.picture for final in finals), *(extra for f in finals for extra in f.extras)]
        result.infotexts = [final.infotext for final in [*finals[: len(grid)], *finals]] or first.infotexts
        result.index_of_first_image = len(grid)
        result.info = result.infotexts[0]
        result.comments = "".join(f"{comment}\n" for comment in self._p.comments)
        result.width, result.height = finals[0].picture.size if finals else self._upscale.size
        result.extra_generation_params = {**self._written, **self._passes.infotext}
        return result

    def _grid(self, first: Any, finals: Sequence[_Final]) -> list[Image.Image]:
        """The grid of all pictures, saved and returned as the host's options say; empty without one."""
        p = self._p
        if p.do_not_save_grid or not finals or (len(finals) == 1 and host.option("grid_only_if_multiple", True)):
            return []
        if not (host.option("return_grid") or host.option("grid_save")):
            return []
        grid, text = saving.grid_of([final.picture for final in finals], p.batch_size), finals[0].infotext
        saving.write_infotext(grid, text)
        if host.option("grid_save"):
            saving.save_grid(grid, "grid", p, first.all_seeds[0], first.all_prompts[0], text)
        return [grid] if host.option("return_grid") else []
