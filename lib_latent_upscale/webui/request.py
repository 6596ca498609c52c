"""The arguments of the script as one request: a list in the order of the controls, or a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib_latent_upscale.catalogue import NAMES, POSITIONS
from lib_latent_upscale.comparison.settings import CompareSettings
from lib_latent_upscale.errors import InputError
from lib_latent_upscale.options import Settings, Switch, shortened
from lib_latent_upscale.settings import UpscaleSettings
from lib_latent_upscale.webui.errors import refusing
from lib_latent_upscale.webui.host.options import default_settings
from lib_latent_upscale.webui.passes.base import ModelCache, Pass, Passes
from lib_latent_upscale.webui.passes.tile import TilePass
from lib_latent_upscale.webui.passes.x4 import X4Pass

__all__ = ["PASSES", "Request", "given_arguments", "named_arguments"]

PASSES: tuple[type[Pass], ...] = (TilePass, X4Pass)
"""The passes in the order in which they run."""


@dataclass(frozen=True)
class Request:
    """What a call requests; missing arguments have the user's defaults."""

    settings: UpscaleSettings
    comparison: CompareSettings
    arguments: Mapping[str, Any]
    """All arguments by their names, including those of passes."""

    @classmethod
    @refusing()
    def parse(cls, arguments: Sequence[Any]) -> Request:
        """Read the script's arguments: values in the order of the controls, or one dictionary.

        Raises:
            ArgumentError: too many, unknown names, or values that are not allowed; `passes` reads those of passes.
        """
        named = named_arguments(arguments)
        settings = UpscaleSettings.from_api(named, default_settings(UpscaleSettings))
        return cls(settings, CompareSettings.from_api(named, default_settings(CompareSettings)), named)

    @refusing()
    def passes(self, p: Any, kept: ModelCache) -> Passes:
        """The requested passes, for one generation.

        Raises:
            ArgumentError: a value that is not allowed, or a pass cannot be run.
        """
        wanted = [kind for kind in PASSES if _asked(kind.SETTINGS, self.arguments)]
        return Passes(p, [kind(p, self.arguments, kept) for kind in wanted])


def _asked(kind: type[Settings], named: Mapping[str, Any]) -> bool:
    given = [name for name in kind.api_names()[1:] if name in named]
    if kind.SWITCH not in named and given:
        raise InputError(f"{', '.join(given)}: only with {kind.SWITCH}, which is True or False")
    problem = Switch().problem(named.get(kind.SWITCH, False))
    if problem:
        raise InputError(f"{kind.SWITCH} {problem}")
    return bool(named.get(kind.SWITCH, False))


def named_arguments(arguments: Sequence[Any]) -> Mapping[str, Any]:
    """The arguments by their names.

    Raises:
        InputError: too many, or unknown names.
    """
    if len(arguments) == 1 and isinstance(arguments[0], Mapping):
        unknown = [name for name in arguments[0] if name not in NAMES]
        if unknown:
            raise InputError(f"unknown settings {shortened(unknown)}; known are: {', '.join(NAMES)}")
        return arguments[0]
    if len(arguments) > len(POSITIONS):
        raise InputError(
            f"script_args has {len(arguments)} values; at most {len(POSITIONS)} are allowed, in this order: "
            f"{', '.join(POSITIONS)}; or one dictionary with these names"
        )
    return dict(zip(POSITIONS, arguments, strict=False))


@refusing()
def given_arguments(script: Any, runner: Any, script_args: Sequence[Any]) -> list[Any]:
    """The arguments of `script` that the caller has really given.

    The API puts the caller's list in place of the script's own arguments (`Api.init_script_args`). A list of another
    length shifts everything after it, and values of other scripts would be taken for ours.

    Raises:
        ArgumentError: the WebUI is still starting.
    """
    if script.args_from is None or len(script_args) < script.args_from:
        raise InputError("the WebUI is still starting and has lost the arguments; call again")
    expected = max(other.args_to for other in runner.scripts)
    moved = len(script_args) - max(expected, 1)
    return list(script_args[script.args_from : max(script.args_to + moved, script.args_from)])
