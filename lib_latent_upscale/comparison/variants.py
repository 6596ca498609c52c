"""The variants of a comparison: the host's own upscale, that of the settings, and further ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.methods import same_method
from lib_latent_upscale.settings import AUTOMATIC, TITLE, UpscaleSettings

__all__ = [
    "HOST_DEFAULT",
    "HOST_PIXELS",
    "Role",
    "Variant",
    "difference",
    "further_variant",
    "merge_same",
    "paired_variants",
    "usual_variants",
    "without_twins",
]

HOST_DEFAULT = UpscaleSettings(method="bilinear", scheduler=AUTOMATIC, exact_steps=False)
"""What the WebUI does with "Just resize (latent upscale)" and default options."""
HOST_PIXELS = UpscaleSettings(method="pixels", scheduler=AUTOMATIC, exact_steps=False)
"""What the WebUI does with "Just resize" and default options: the fair baseline at low denoising strength."""

Role: TypeAlias = Literal["host", "pixels", "own", "extra", "pass"]
"""Role of a variant: the host's latent upscale, its resize of the picture, the settings themselves, a further variant,
or the settings with passes."""


@dataclass(frozen=True)
class Variant:
    """One way to upscale, in a comparison."""

    name: str
    """Title above the picture."""
    settings: UpscaleSettings
    overrides: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Settings of the host that differ from those of the other variants, such as steps."""
    role: Role = "extra"
    passes: tuple[str, ...] = ()
    """Names of the passes that run during and after the upscale, in order."""


def usual_variants(own: UpscaleSettings, host_schedule: str | None) -> list[Variant]:
    """The variants of every comparison: both of the host's own upscales, and that of the settings.

    With matched noise the host's latent upscale is included a second time, starting from the same noise as the others.

    Args:
        own: the settings.
        host_schedule: the schedule that the host itself uses, a name in `SCHEDULES`; None if it is not among them, and
            then it is not included again.
    """
    variants = [
        Variant("WebUI, latent upscale", HOST_DEFAULT, role="host"),
        Variant("WebUI, Just resize", HOST_PIXELS, role="pixels"),
    ]
    if own.starts_anywhere and own.starting_noise != "continuous" and host_schedule is not None:
        matched = replace(own, method=HOST_DEFAULT.method, scheduler=host_schedule, keep_statistics=False)
        variants.append(Variant("WebUI, latent upscale, matched noise", matched, role="host"))
    return [*variants, Variant(TITLE, own, role="own")]


def paired_variants(own: UpscaleSettings, methods: Sequence[str], schedulers: Sequence[str]) -> list[Variant]:
    """Every combination of a method and a scheduler; an empty list means that of `own`, two empty ones no variant.

    Raises:
        ValueError: a name that is not allowed.
    """
    if not (methods or schedulers):
        return []
    return [
        further_variant({"method": method, "scheduler": scheduler}, own, ())
        for method in methods or [own.method]
        for scheduler in schedulers or [own.scheduler]
    ]


def further_variant(given: Mapping[str, Any], own: UpscaleSettings, overrides: Collection[str]) -> Variant:
    """A variant from names and values; everything else is as in `own`.

    Args:
        given: fields of `UpscaleSettings`, names in `overrides`, and "name" for the title above the picture.
        own: the settings that are compared.
        overrides: names of the host's settings that a variant may change; the host checks their values.

    Raises:
        ValueError: an unknown name, or a setting that is not allowed.
    """
    known = ["name", *(one.name for one in fields(UpscaleSettings)), *overrides]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(f"unknown names {unknown}; known are: {', '.join(known)}")
    chosen = {name: value for name, value in given.items() if name not in {"name", *overrides}}
    settings = UpscaleSettings.from_dict({**asdict(own), **chosen})
    changed = {name: value for name, value in given.items() if name in overrides}
    return Variant(str(given.get("name") or _name(settings, own, changed)), settings, MappingProxyType(changed))


def _name(settings: UpscaleSettings, own: UpscaleSettings, overrides: Mapping[str, Any]) -> str:
    """Method and scheduler, and all other differences to `own`."""
    values, before = asdict(settings), asdict(own)
    said = [
        difference(name, value)
        for name, value in values.items()
        if name not in {"method", "scheduler"} and value != before[name]
    ]
    said += [f"{name.removesuffix('_name').replace('_', ' ')} {value}" for name, value in overrides.items()]
    return ", ".join([f"{settings.method} + {settings.scheduler}", *said])


def difference(name: str, value: Any) -> str:
    """The value of an option in words, such as "no exact steps"."""
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {value}"


def without_twins(variants: Sequence[Variant]) -> list[Variant]:
    """The variants in order; of several that differ only in their names, the first."""
    kept: dict[Any, Variant] = {}
    for variant in variants:
        kept.setdefault((variant.settings, variant.passes, *sorted(variant.overrides.items())), variant)
    return list(kept.values())


def merge_same(
    variants: Sequence[Variant],
    source: tuple[int, int],
    target: tuple[int, int],
    ran: Callable[[Variant], UpscaleSettings] = lambda variant: variant.settings,
) -> list[list[Variant]]:
    """Group variants that are mathematically the same; only the first of each group needs to run. Order is kept.

    Args:
        variants: all variants.
        source, target: (height, width) of the latents in cells, before and after the upscale.
        ran: returns the settings that a variant runs, with the method that "automatic" means.
    """

    def same(first: Variant, second: Variant) -> bool:
        one, other = ran(first), ran(second)
        alike = (first.overrides, first.passes) == (second.overrides, second.passes)
        alike = alike and replace(one, method=other.method) == other
        return alike and same_method(one.method, other.method, source, target)

    groups: list[list[Variant]] = []
    for variant in variants:
        twin = next((group for group in groups if same(group[0], variant)), None)
        if twin is None:
            groups.append([variant])
        else:
            twin.append(variant)
    return groups
