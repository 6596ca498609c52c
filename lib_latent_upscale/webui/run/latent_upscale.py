"""One generation with a latent upscale: what is set on the host's processing object, and removed again."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.latent_layouts import resized
from lib_latent_upscale.methods import weights_of
from lib_latent_upscale.options import MAX_STEPS, SettingsError
from lib_latent_upscale.schedules import Limits, scheduled_steps
from lib_latent_upscale.settings import AUTOMATIC, TITLE, WEIGHTS_LABEL, UpscaleSettings
from lib_latent_upscale.webui.errors import PREFIX, refusing
from lib_latent_upscale.webui.host import learned_files, models, samplers
from lib_latent_upscale.webui.host import processing as host
from lib_latent_upscale.webui.host.geometry import cut_for_encoding, picture_mode, placed, whole_cells
from lib_latent_upscale.webui.host.machine import stopped
from lib_latent_upscale.webui.host.overrides import overridden
from lib_latent_upscale.webui.run.collaborator import Collaborator
from lib_latent_upscale.webui.run.notes import NOTE_LABEL, joined_notes

__all__ = ["SAMPLER_NOTES", "LatentUpscale", "upscale_of"]

_ATTRIBUTE = "latent_upscale"
_ORIGINAL_CONTENT = (0, 1)
"""Values of `inpainting_fill` that start from the picture: "fill" and "original"."""

_OWN_TIMESTEPS: dict[str, Any] = {"scheduler": AUTOMATIC, "matched_noise": False, "starting_noise": "schedule"}
"""Settings of what runs with a sampler that does not follow sigmas."""

SAMPLER_NOTES = {
    "DPM fast": "DPM fast takes only the ends of the scheduler and places its steps itself.",
    "DPM adaptive": "DPM adaptive takes only the ends of the scheduler and chooses its steps itself.",
    "Restart": "Restart makes a Karras schedule of its own between the scheduler's ends when it has 20 steps or more.",
}


def upscale_of(p: Any) -> LatentUpscale | None:
    """The latent upscale that is installed on a processing object, if any."""
    return getattr(p, _ATTRIBUTE, None)


_ROUNDING = 64
"""Pixels; hosts round a side by up to this."""


class LatentUpscale:
    """Makes the host's processing object `p` enlarge latents, through attributes of this object only.

    The host's own `init` runs, and only its encode is replaced for one call. Its modules and options are not changed.

    Raises:
        ArgumentError: the settings cannot be used with those of `p`.
    """

    def __init__(self, p: Any, settings: UpscaleSettings, collaborator: Collaborator | None = None) -> None:
        self.settings = self._asked = settings
        self._collaborator = collaborator or Collaborator()
        self.size: tuple[int, int] = (p.width, p.height)
        self._given = self.size
        """What `p` was given as sides, multiples of a cell."""
        self._batch_size: int = p.batch_size
        """As requested: Neo changes it before `init` for a model that makes videos."""
        self._p = p
        self._resize_mode = picture_mode(p.resize_mode)
        self._host_init: Callable[..., None] = p.init
        self._host_sample: Callable[..., Tensor] = p.sample
        self._encode_again: Callable[[Sequence[int]], Tensor] | None = None
        self._installed = ExitStack()
        self._fitted: Literal["", "picture", "composite"] = ""
        self.put_back_random_state = host.saved_rng_state()
        self.family: str | None = None
        """Model family of the latents, a name in `learned.LATENTS`; known after `init`, None for all others."""
        _check(p, settings)
        with refusing():
            self._file = learned_files.file_for(settings.method)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Installed on `p` for one run, and removed afterwards."""
        self.install()
        try:
            with self._steps_told():
                yield
        finally:
            self.uninstall()
            self.put_back_random_state()

    def _steps_told(self) -> AbstractContextManager[None]:
        """Inside, the host's option says that all steps run: other extensions read it."""
        return host.exact_steps_wanted() if self._steps_fixed else nullcontext()

    @property
    def _steps_fixed(self) -> bool:
        return self.settings.exact_steps or self.settings.starts_anywhere

    def install(self) -> None:
        """Set the overrides on `p`. Dictionaries are replaced, not changed, since copies of `p` may share them."""
        p = self._p
        cell = models.vae_scale_factor()
        self._given = whole_cells(self.size[0], cell), whole_cells(self.size[1], cell)
        overrides = {
            _ATTRIBUTE: self,
            "width": self._given[0],
            "height": self._given[1],
            "resize_mode": self._resize_mode,
            "paste_to": None,  # the Batch tab uses one `p` for all files, and `init` keeps the last mask's place
            "init_images": p.init_images,
            "extra_generation_params": {**p.extra_generation_params, **self._collaborator.infotext(self._infotext())},
            "init": self._init,
            "sample": self._sample,
            "sample_before_CN_hack": None,  # sd-webui-controlnet would go on with the `sample` of the file before
        }
        if self.settings.scheduler != AUTOMATIC:
            overrides["sampler_noise_scheduler_override"] = self._sigmas
        self._installed.enter_context(overridden(p, overrides))

    def uninstall(self) -> None:
        """Restore `p`; the Batch tab uses it again."""
        self._installed.close()

    def fit(self, picture: Image.Image) -> Image.Image:
        """A finished picture, resized to exactly the requested size; the host's sides are multiples of 8."""
        if picture.size == self.size:
            return picture
        return picture.resize(self.size, resample=Image.Resampling.LANCZOS)

    def fit_picture(self, picture: Image.Image) -> Image.Image:
        """`fit` for the hook `postprocess_image`, which ersatzForge calls last of the three, and other hosts first."""
        if self._fitted == "composite":
            self._fitted = ""
            return picture
        self._fitted = "picture"
        return self.fit(picture)

    def fit_overlay(self, shown: Any) -> None:
        """For the hook `postprocess_maskoverlay`: the overlay must have the size that the picture has by then."""
        if self._fitted == "picture" and shown.overlay_image is not None:
            shown.overlay_image = host.fitted(shown.overlay_image, self.fit)
            shown.mask_for_overlay = self.fit(shown.mask_for_overlay)

    def fit_composite(self, picture: Image.Image) -> Image.Image:
        """`fit` for the hook `postprocess_image_after_composite`; passes may enlarge the picture afterwards."""
        self._fitted = "" if self._fitted == "picture" else "composite"
        return self.fit(picture)

    def _infotext(self) -> dict[str, Any]:
        extra: dict[str, Any] = {"Script": TITLE, **self.settings.to_infotext()}
        if self.settings.scheduler != AUTOMATIC:
            extra["Schedule type"] = None  # the host leaves out what is None; its own schedule does not run
        return extra

    def _note(self, text: str) -> None:
        """Tell the user what could not be done, below the result and in the infotext."""
        extra = self._p.extra_generation_params
        earlier = extra.get(NOTE_LABEL) or ""
        if text not in earlier:  # it may be there for an earlier picture
            host.comment(self._p, text)
            extra[NOTE_LABEL] = joined_notes(earlier, text)

    # init

    def _init(self, all_prompts: Any, all_seeds: Any, all_subseeds: Any) -> None:
        self._take_size()
        models.apply_noise_schedule(self._p)
        self._choose_weights()
        with host.preserved_random_state():
            host.seed_draws(int(all_seeds[0]))  # inpainting models draw once more for their conditioning
            with host.replaced_encode(partial(self._encode, all_seeds)):
                self._host_init(all_prompts, all_seeds, all_subseeds)
        if self._encode_again is None:
            raise RuntimeError(f"{PREFIX}this version of the WebUI does not encode where expected.")
        if self._p.paste_to is not None:
            self._enlarge_surroundings()
        self._adapt_sampler()
        self._collaborator.prepared(self._p)

    @refusing()
    def _take_size(self) -> None:
        """Round the sides as the model needs it, which is loaded only now; the host may have rounded them already."""
        p = self._p
        if models.makes_video(p):
            raise InputError(
                f"a batch size of {self._batch_size} makes a video with this model, and only pictures are "
                "enlarged; set the batch size to 1"
            )
        if p.batch_size != self._batch_size:
            self._note(
                f"the WebUI makes {p.batch_size} instead of {self._batch_size} pictures of a batch with this model; "
                "use Batch count for several."
            )
        multiple = models.side_multiple(p.sd_model)
        width, height = models.sides_without_rounding(p.sd_model, self._given, (p.width, p.height))
        p.width, p.height = whole_cells(width, multiple), whole_cells(height, multiple)
        if (p.width, p.height) == self.size:
            return
        asked = f"{self.size[0]}x{self.size[1]}"
        p.extra_generation_params["Size"] = asked
        if max(abs(p.width - self.size[0]), abs(p.height - self.size[1])) > _ROUNDING:
            self._note(
                f"another extension set the size to {p.width}x{p.height}; the picture was made at that size and then "
                f"stretched to {asked} (Tiled Diffusion: switch Keep input image size off)."
            )

    def _choose_weights(self) -> None:
        """Choose method and network for the model that is loaded now: `override_settings` may have changed it."""
        p = self._p
        self.family = models.latent_family(p.sd_model)
        ran = self.resolved(self.family)
        if ran != self._asked:
            self._say_what_ran(ran)
        self.settings = ran
        with refusing():  # no network may know the latents, or the user's own file may not fit
            weights = weights_of(ran.method, self.family, self._file)
        if weights:
            self._p.extra_generation_params[WEIGHTS_LABEL] = weights

    def resolved(self, family: str | None) -> UpscaleSettings:
        """The settings that run with latents of this family, a name in `learned.LATENTS` or None."""
        p = self._p
        factor = math.sqrt(math.prod(self.size) / math.prod(p.init_images[0].size))
        return self._asked.resolved(family=family, factor=factor)

    def _encode(self, seeds: Sequence[int], encode: host.Encode, enlarged: Tensor) -> Tensor:
        """Enlarged latents of the small pictures, in place of those of the pictures that the host has enlarged."""
        small = [self._small(picture) for picture in self._p.init_images]
        if self.settings.resizes_picture:
            pixels = [enlarged[index : index + 1] for index in range(len(enlarged))]
        else:
            pixels = [_pixels(picture).to(enlarged) for picture in small]
        copies = len(enlarged) // len(pixels) if len(pixels) == 1 else 1
        self._encode_again = partial(self._latents, pixels * copies, small[0].size, self._collaborator.encode(encode))
        return self._encode_again(seeds)

    def _latents(
        self, pictures: Sequence[Tensor], source: tuple[int, int], encode: host.Encode, seeds: Sequence[int]
    ) -> Tensor:
        """Encode and enlarge each picture; it is encoded with its own seed, so that it can be made again alone.

        `source` is (width, height) of the small picture in pixels.
        """
        cell = models.vae_scale_factor()
        size = (self._p.height // cell, self._p.width // cell)
        small = source[1] / cell, source[0] / cell
        enlarge = refusing()(partial(self.settings.enlarge, source=small, family=self.family, file=self._file))
        latents = []
        for picture, seed in zip(pictures, seeds, strict=False):
            host.seed_draws(int(seed))
            latents.append(resized(encode(picture), size, enlarge, cell=cell))
        return torch.cat(latents)

    def _small(self, picture: Image.Image) -> Image.Image:
        """The part of an init picture that is enlarged, with its masked content filled as by the host."""
        p = self._p
        flat = host.flattened(picture)
        if p.paste_to is not None:  # "Only masked": the host has chosen a region of the picture
            left, top, width, height = p.paste_to
            box = (left, top, left + width, top + height)
        else:
            box = placed(flat.size, self.size, self._resize_mode).visible
        small = cut_for_encoding(flat, box, models.vae_scale_factor())
        if p.image_mask is None or p.mask_for_overlay is None or p.inpainting_fill == 1:
            return small
        mask = p.latent_mask or p.mask_for_overlay
        if p.paste_to is not None and p.latent_mask is None:
            mask = mask.crop(box)
        return host.filled(small, mask.convert("L").resize(small.size, resample=Image.Resampling.LANCZOS))

    def _enlarge_surroundings(self) -> None:
        """Have an "Only masked" region pasted into the enlarged picture; the host would paste it into the small one.

        `init_images` are changed, too: soft inpainting reads them after sampling.
        """
        p = self._p
        flat = [host.flattened(picture) for picture in p.init_images]
        p.paste_to = placed(flat[0].size, self.size, self._resize_mode).area(*p.paste_to)
        p.mask_for_overlay = host.enlarged(p.mask_for_overlay.convert("L"), self.size, self._resize_mode).convert("L")
        p.init_images = [host.enlarged(picture, self.size, self._resize_mode) for picture in flat]
        copies = p.batch_size if len(flat) == 1 else 1
        p.overlay_images = [_overlay(picture, p.mask_for_overlay) for picture in p.init_images] * copies

    # sampling

    def _sample(self, *args: Any, **kwargs: Any) -> Tensor:
        """Sample. The host encodes only once for "Batch count": later pictures are encoded here, with their seeds."""
        p = self._p
        self._collaborator.sampling(p)
        plain = p.image_mask is None or p.inpainting_fill in _ORIGINAL_CONTENT
        if p.iteration > 0 and plain and self._encode_again is not None:
            with host.preserved_random_state():
                p.init_latent = self._encode_again(p.seeds).to(p.init_latent)
        # `_steps_told` again: X/Y/Z plot runs outside of `installed`
        with self._steps_told(), samplers.model_calls(p.sampler) as calls:
            sampled = self._host_sample(*args, **kwargs)
        self._tell_steps(calls())
        self._collaborator.sampled(p, calls())
        return sampled

    def _tell_steps(self, calls: int | None) -> None:
        """Note if the sampler has run fewer steps than requested, as DDIM, PLMS and UniPC of v1.10.1 do."""
        p = self._p
        if calls is None or stopped() or not self._steps_fixed or p.denoising_strength == 0 or calls >= p.steps:
            return
        self._note(f"not exactly {p.steps} steps: {p.sampler_name} of this WebUI ran the model {calls} times.")

    def _adapt_sampler(self) -> None:
        p = self._p
        follows = models.follows_sigmas(p.sampler)
        if self.settings.scheduler != AUTOMATIC and not follows:
            self._say_what_ran(replace(self.settings, **_OWN_TIMESTEPS))
            p.extra_generation_params.pop("Schedule type", None)
            self._note(f"{p.sampler_name} ignores sigmas; its own timesteps ran instead of {self._ignored()}.")
        elif self.settings.scheduler != AUTOMATIC and p.sampler_name in SAMPLER_NOTES:
            self._note(SAMPLER_NOTES[p.sampler_name])
        elif follows and (beyond := self._beyond()):
            self._note(beyond)
        if host.option("img2img_extra_noise", 0) and models.is_flow_model(p):
            self._note("the WebUI's option Extra noise spoils pictures of flow-matching models; set it to 0.")
        if self._steps_fixed:
            self._fix_steps(follows_sigmas=follows)

    def _beyond(self) -> str:
        """What to tell of the host's own schedule, if it starts far above the model's largest sigma."""
        p, table = self._p, models.model_sigmas(self._p)
        if self.settings.scheduler != AUTOMATIC or not models.is_flow_table(table):
            return ""
        exact = self._steps_fixed or host.exact_by_default()
        request = (getattr(p, "scheduler", None), p.sampler_name, p.steps, p.denoising_strength)
        plan = samplers.host_plan(*request, models.loaded_model(), table, exact=exact)
        return samplers.beyond_table(plan, table)

    def _say_what_ran(self, ran: UpscaleSettings) -> None:
        """Write the settings that ran, instead of those that were requested."""
        written = self._p.extra_generation_params
        for label in UpscaleSettings.labels().values():
            written.pop(label, None)
        written.update(ran.to_infotext())

    def _ignored(self) -> str:
        """The settings that a sampler without sigmas ignores, in words."""
        start = "matched" if self.settings.matched_noise else self.settings.starting_noise
        return self.settings.scheduler + (f" and the {start} starting noise" if self.settings.starts_anywhere else "")

    @refusing()
    def _fix_steps(self, *, follows_sigmas: bool) -> None:
        """Have exactly the requested steps run, by an argument of the sampler; the host's option is not changed."""
        p = self._p
        total = scheduled_steps(p.steps, p.denoising_strength)
        if total == 0:
            p.sampler.sample_img2img = lambda _p, x, *_args, **_kwargs: x
            self._note("denoising strength 0: no step ran.")
        elif not follows_sigmas and total > MAX_STEPS:
            raise InputError(
                f"{p.steps} steps at denoising strength {p.denoising_strength} need {total} timesteps "
                f"of {p.sampler_name}, which has {MAX_STEPS}; raise the denoising strength, or use another sampler"
            )
        else:
            p.sampler.sample_img2img = partial(p.sampler.sample_img2img, steps=p.steps)

    def _sigmas(self, steps: int) -> Tensor:
        """The schedule with the number of steps that the host asks for; it cuts it by the denoising strength itself.

        It asks for one step more with samplers whose penultimate sigma it drops.
        """
        table = models.model_sigmas(self._p)
        options, written = host.schedule_options()
        self._p.extra_generation_params.update(written)  # not earlier: the host has applied `override_settings` by now
        limits = Limits(**options)
        return self.settings.host_sigmas(steps, self._p.steps, self._p.denoising_strength, table, limits=limits)


def _pixels(picture: Image.Image) -> Tensor:
    """The picture as (1, 3, height, width) in 0 to 1, the input of the host's encode."""
    return torch.from_numpy(np.array(picture).astype(np.float32).transpose(2, 0, 1).copy() / 255.0)[None]


def _overlay(picture: Image.Image, mask: Image.Image) -> Image.Image:
    overlay = picture.convert("RGBA")
    overlay.putalpha(ImageOps.invert(mask))
    return overlay


@refusing()
def _check(p: Any, settings: UpscaleSettings) -> None:
    """Check values before any work.

    Raises:
        ArgumentError: one is not allowed; says which, and what is allowed.
    """
    if settings.starts_anywhere and settings.scheduler == AUTOMATIC:
        said = "{matched_noise}" if settings.matched_noise else "{starting_noise}"
        said += " needs a scheduler of this script; {scheduler} is {0!r}"
        raise SettingsError(UpscaleSettings, said, AUTOMATIC)
    if not p.init_images or any(picture is None for picture in p.init_images):
        raise InputError("there is no picture to enlarge; put one into img2img (API: init_images)")
    for name in ("width", "height"):
        if not isinstance(getattr(p, name), int) or getattr(p, name) < 1:
            raise InputError(f"{name} is {getattr(p, name)!r}; an integer of at least 1 is needed")
    scheduled_steps(p.steps, p.denoising_strength)
