"""The ways to upscale that take part in a comparison: the host's own, the settings', and further ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.methods import same_method
from lib_latent_upscale.settings import AUTOMATIC, UpscaleSettings

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
"""What the WebUI does with "Just resize (latent upscale)" and untouched options."""
HOST_PIXELS = UpscaleSettings(method="pixels", scheduler=AUTOMATIC, exact_steps=False)
"""What the WebUI does with "Just resize" and untouched options: the fair opponent at low denoising strength."""

Role: TypeAlias = Literal["host", "pixels", "own", "extra", "pass"]
"""What a variant is there for: the host's latent upscale, its resize of the picture, the settings' own, a further one,
or the settings' own with passes."""


@dataclass(frozen=True)
class Variant:
    """One way to upscale that takes part in a comparison."""

    name: str
    """What people read above the picture."""
    settings: UpscaleSettings
    overrides: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Further settings of the host, such as steps, that differ from the other variants'."""
    role: Role = "extra"
    passes: tuple[str, ...] = ()
    """Names of the passes that run around and after the upscale, in their order."""


def usual_variants(own: UpscaleSettings, host_schedule: str | None) -> list[Variant]:
    """What every comparison begins with: both of the host's own ways and the settings' own.

    `host_schedule` is what the host runs by itself, a name in `SCHEDULES`. With matched noise its default is
    included a second time, from the noise that all others start from; not with None, where it has no such schedule.
    """
    variants = [
        Variant("WebUI, latent upscale", HOST_DEFAULT, role="host"),
        Variant("WebUI, Just resize", HOST_PIXELS, role="pixels"),
    ]
    if own.starts_anywhere and own.starting_noise != "continuous" and host_schedule is not None:
        matched = replace(own, method=HOST_DEFAULT.method, scheduler=host_schedule, keep_statistics=False)
        variants.append(Variant("WebUI, latent upscale, matched noise", matched, role="host"))
    return [*variants, Variant("Latent Upscale", own, role="own")]


def paired_variants(own: UpscaleSettings, methods: Sequence[str], schedulers: Sequence[str]) -> list[Variant]:
    """Each of the methods with each of the schedulers; where one of the lists is empty, `own` stands in for it."""
    if not (methods or schedulers):
        return []
    return [
        further_variant({"method": method, "scheduler": scheduler}, own, ())
        for method in methods or [own.method]
        for scheduler in schedulers or [own.scheduler]
    ]


def further_variant(given: Mapping[str, Any], own: UpscaleSettings, overrides: Collection[str]) -> Variant:
    """A variant from names and values; what they leave out is as in `own`.

    Args:
        given: fields of `UpscaleSettings`, names in `overrides`, and "name" for what stands above the picture.
        own: the settings that a comparison is about.
        overrides: names of the host's settings that a variant may change; their values are the host's to check.

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
    """Method and scheduler, and whatever else sets the variant apart."""
    values, before = asdict(settings), asdict(own)
    said = [
        difference(name, value)
        for name, value in values.items()
        if name not in {"method", "scheduler"} and value != before[name]
    ]
    said += [f"{name.removesuffix('_name').replace('_', ' ')} {value}" for name, value in overrides.items()]
    return ", ".join([f"{settings.method} + {settings.scheduler}", *said])


def difference(name: str, value: Any) -> str:
    """An option that sets a variant apart, in words."""
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {value}"


def without_twins(variants: Sequence[Variant]) -> list[Variant]:
    """The variants in their order, of those that are equal but for their names the first."""
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
    """Group variants that are mathematically the same upscale from latent size `source` to `target` (height, width).

    Only the first of each group needs to run. Variants keep their order. `ran` gives the settings that a variant runs,
    where an automatic method is another one.
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
