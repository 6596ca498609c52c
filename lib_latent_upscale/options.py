"""One row per option: `option(...)` makes a dataclass field with everything that is known about the option.

    @dataclass(frozen=True)
    class UpscaleSettings(Settings):
        method: str = option(AUTOMATIC, choices=[METHODS], label="Upscale method", infotext="...", tip="...")

Everything else about options is a loop over `rows(UpscaleSettings)`: the controls of both pages, names and order of the
API, writing and reading infotext, axes of X/Y/Z plot, the settings page, the command's flags and docs/options.md. A new
option is one field, and its use. Nothing heavy is imported here or by a class of settings, so that `--help` answers at
once.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

from lib_latent_upscale.errors import InputError

__all__ = [
    "AUTOMATIC",
    "MAX_STEPS",
    "Allowed",
    "Chosen",
    "Dictionaries",
    "Further",
    "Integer",
    "Names",
    "Number",
    "OneOf",
    "Option",
    "Settings",
    "SettingsError",
    "Switch",
    "Table",
    "Text",
    "option",
    "rows",
    "shortened",
]

AUTOMATIC = "automatic"
"""The name that leaves a choice to the program that runs it, such as the schedule to the host."""

MAX_STEPS = 1000
"""The largest number of steps of a run."""

_LONGEST = 80
"""The most characters of a value that an error repeats."""

T = TypeVar("T")
S = TypeVar("S", bound="Settings")


class SettingsError(InputError):
    """A setting is not allowed; the message names the field or fields, what was given and what is allowed."""

    def __init__(self, kind: type[Settings], template: str, *values: object) -> None:
        """Describe what is wrong.

        Args:
            kind: the class of settings that has the fields.
            template: the sentence; `{weight}` stands for the name of the field weight, `{model}` for that of the
                model, `{0}` for the first of `values`.
            values: put into the sentence as they are.
        """
        super().__init__(kind, template, *values)
        self.kind = kind
        self._template, self._values = template, values

    def __str__(self) -> str:
        return self.said(lambda name: name)

    def said(self, call: Callable[[str], str]) -> str:
        """The sentence with other names for the fields: `call(name)` for each, such as its label."""
        names = {name: call(name) for name in ("model", *rows(self.kind))}
        return self._template.format(*self._values, **names)

    @property
    def on_page(self) -> str:
        """The sentence for users who see controls: fields are called by their labels."""
        labels = {name: row.label for name, row in rows(self.kind).items()}
        return self.said({"model": self.kind.MODEL, **labels}.__getitem__)

    @property
    def in_call(self) -> str:
        """The sentence for callers of the API: fields are called by their names there."""
        return self.said(self.kind.api_name)


def shortened(value: object) -> str:
    """A value as an error repeats it; of a long one only the beginning, and its length."""
    text = repr(value[: 2 * _LONGEST] if isinstance(value, (str, bytes)) else value)
    if len(text) <= _LONGEST:
        return text
    length = f" ({len(value)} characters)" if isinstance(value, str) else ""
    return f"{text[:_LONGEST]}...{length}"


@dataclass(frozen=True)
class Table:
    """Refers to a table in a module, such as `INTERPOLATIONS`, without importing the module."""

    module: str
    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The table's keys; read from the source until the module is imported, since importing torch takes seconds."""
        table = getattr(sys.modules.get(self.module), self.name, None)
        return _keys_in_source(self.module, self.name) if table is None else tuple(table)


@dataclass(frozen=True)
class Further:
    """Names with the same beginning, such as those of files; which of them exist, only a host knows."""

    start: str
    stands_for: str
    """What follows the beginning, in capital letters, for messages."""

    def holds(self, name: str) -> bool:
        """Whether a name is one of these."""
        return name.startswith(self.start) and bool(name[len(self.start) :].strip()) and not _half_character(name)

    @property
    def text(self) -> str:
        """A name that stands for all of them, for messages."""
        return f"{self.start}{self.stands_for}"


@cache
def _keys_in_source(module: str, name: str) -> tuple[str, ...]:
    spec = importlib.util.find_spec(module.partition(".")[0])
    folders = spec.submodule_search_locations if spec is not None else None
    if not folders:
        raise LookupError(f"there is no package {module.partition('.')[0]}")
    path = Path(next(iter(folders)), *module.split(".")[1:]).with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            found = next(part for part in ast.walk(node) if isinstance(part, ast.Dict))
            return tuple(ast.literal_eval(key) for key in found.keys if key is not None)
    raise LookupError(f"{name} is not assigned in {path.name}")


Choice: TypeAlias = "str | Table | Further"
"""A name, or something that has several."""


class Allowed:
    """The values that an option may have, and how they are written in infotext; one subclass for each kind of value."""

    def problem(self, value: Any) -> str:
        """What is wrong with a value, such as "is 7; choose ..."; empty if nothing is."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """What is allowed, in a few words."""
        raise NotImplementedError

    def normal(self, value: Any) -> Any:
        """The value in the type of its field: sliders of some hosts return 20.0 for 20, and 9 for 9.0."""
        return value

    def read(self, text: str) -> Any:
        """The value that a text stands for; the text itself if it stands for none, which `problem` then reports."""
        return text

    def write(self, value: Any) -> str:
        """The text of a value; empty if nothing needs to be written."""
        return str(value)


@dataclass(frozen=True)
class Text(Allowed):
    """Any text that can be written into a file."""

    def problem(self, value: Any) -> str:
        return _half_character(value) if isinstance(value, str) else f"is {shortened(value)}; text is needed"

    @property
    def text(self) -> str:
        return "text"


@dataclass(frozen=True)
class Switch(Allowed):
    """True or False, but not 1 or 0."""

    def problem(self, value: Any) -> str:
        return "" if isinstance(value, bool) else f"is {shortened(value)}; choose True or False"

    @property
    def text(self) -> str:
        return "on, off"

    def read(self, text: str) -> Any:
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)


@dataclass(frozen=True)
class Chosen(Allowed):
    """Names to choose from."""

    choices: tuple[Choice, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, in the order of the controls, without those of a `Further`."""
        return tuple(_each(self.choices))

    @property
    def text(self) -> str:
        return _listed(self.choices)


@dataclass(frozen=True)
class OneOf(Chosen):
    """One of the allowed names."""

    def problem(self, value: Any) -> str:
        if isinstance(value, str) and _among(value, self.choices):
            return ""
        return f"is {shortened(value)}; choose one of: {self.text}"


@dataclass(frozen=True)
class Names(Chosen):
    """Any number of the allowed names."""

    def problem(self, value: Any) -> str:
        if not _is_list(value):
            return f"is {shortened(value)}; a list of names is needed, of: {self.text}"
        unknown = [shortened(name) for name in value if not (isinstance(name, str) and _among(name, self.choices))]
        return f"has {', '.join(unknown[:3])}; choose from: {self.text}" if unknown else ""

    def normal(self, value: Any) -> Any:
        return _as_tuple(value)

    def read(self, text: str) -> Any:
        return tuple(name for name in text.split(", ") if name)

    def write(self, value: Any) -> str:
        return ", ".join(value)


@dataclass(frozen=True)
class Dictionaries(Allowed):
    """A list of dictionaries; their contents are checked where they are used."""

    example: str

    def problem(self, value: Any) -> str:
        if _is_list(value) and all(isinstance(one, Mapping) for one in value):
            return _half_character("".join(str(part) for one in value for item in one.items() for part in item))
        return f"is {shortened(value)}; a list of dictionaries is needed, such as {self.example}"

    @property
    def text(self) -> str:
        return f"list of dictionaries, such as `{self.example}`"

    def normal(self, value: Any) -> Any:
        return _as_tuple(value)

    def read(self, text: str) -> Any:
        try:
            return tuple(json.loads(text))
        except (TypeError, ValueError):
            return text

    def write(self, value: Any) -> str:
        return json.dumps([dict(one) for one in value]) if value else ""


@dataclass(frozen=True)
class Integer(Allowed):
    """An integer from `lowest` to `highest` that is a multiple of `step`, or one of `extra`."""

    lowest: int
    highest: int
    step: int = 1
    extra: tuple[int, ...] = ()

    def problem(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool) and self._allows(value):
            return ""
        return f"is {shortened(value)}; an integer from {self.text} is needed"

    def _allows(self, value: int) -> bool:
        return value in self.extra or (self.lowest <= value <= self.highest and value % self.step == 0)

    @property
    def least(self) -> int:
        """The lowest allowed value, `extra` included."""
        return min((self.lowest, *self.extra))

    @property
    def text(self) -> str:
        unit = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.lowest} to {self.highest}{unit}" + "".join(f", or {number}" for number in self.extra)

    def normal(self, value: Any) -> Any:
        return int(value) if isinstance(value, float) and value.is_integer() else value

    def read(self, text: str) -> Any:
        return _number(text)


@dataclass(frozen=True)
class Number(Allowed):
    """A finite number from `lowest` to `highest`; the lowest may have a meaning of its own, `lowest_means`."""

    lowest: float
    highest: float
    lowest_means: str = ""

    def problem(self, value: Any) -> str:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and self._allows(value):
            return ""
        return f"is {shortened(value)}; a number from {self.text} is needed"

    def _allows(self, value: float) -> bool:
        return math.isfinite(value) and self.lowest <= value <= self.highest

    @property
    def least(self) -> float:
        """The lowest allowed value."""
        return self.lowest

    @property
    def text(self) -> str:
        lowest = f"{self.lowest:g} ({self.lowest_means})" if self.lowest_means else f"{self.lowest:g}"
        return f"{lowest} to {self.highest:g}"

    def normal(self, value: Any) -> Any:
        return float(value) if type(value) is int else value

    def read(self, text: str) -> Any:
        return _number(text)


def _half_character(text: str) -> str:
    """What is wrong with a text that cannot be encoded in UTF-8; empty if nothing is."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return f"has half of a character (the lone surrogate {text[error.start]!r}), which no file can hold"
    return ""


def _each(choices: Iterable[Choice]) -> Iterable[str]:
    for choice in choices:
        if not isinstance(choice, Further):
            yield from (choice,) if isinstance(choice, str) else choice.names


def _among(name: str, choices: Sequence[Choice]) -> bool:
    further = [choice for choice in choices if isinstance(choice, Further)]
    return name in _each(choices) or any(one.holds(name) for one in further)


def _listed(choices: Sequence[Choice]) -> str:
    return ", ".join([*_each(choices), *(one.text for one in choices if isinstance(one, Further))])


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _as_tuple(value: Any) -> Any:
    return tuple(value) if _is_list(value) else value


def _number(text: str) -> Any:
    """An int or a float if `text` is one, otherwise `text`."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(text) if text.lstrip("+-").isdigit() else number


@dataclass(frozen=True)
class Option:
    """Everything that is known about one option."""

    name: str
    """Name of the field."""
    default: Any
    allowed: Allowed
    label: str
    """Label of its control. It never changes: ui-config.json keeps users' changes under it."""
    tip: str
    """One clause for users, without a full stop at the end."""
    infotext: str | None
    """Its label in infotext; None if it is not written there. It never changes: it is in users' pictures."""
    axis: str | None
    """Name of its axis in X/Y/Z plot; None if it has no axis."""
    setting: bool
    """Whether its default can be changed on the settings page."""
    flag: str | None
    """The command's flag; without dashes at its start it follows the settings' `FLAGS`. None if there is no flag."""
    control: bool
    """Whether it has a control."""
    slider: tuple[float, float] | None
    """The highest value and the step of its slider; None if it has none."""

    def problem(self, value: object) -> str:
        """What is wrong with a value; empty if nothing is."""
        return self.allowed.problem(value)

    def normalised(self, value: Any) -> Any:
        """A value in the type of the field; unchanged if it is not allowed, so that an error can repeat it."""
        normal = self.allowed.normal(value)
        return value if self.problem(normal) else normal


_OPTION = "option"


def option(
    default: T,
    *,
    label: str,
    tip: str,
    infotext: str | None = None,
    choices: Iterable[Choice] | None = None,
    low: float | None = None,
    high: float | None = None,
    step: float | None = None,
    extra: tuple[int, ...] = (),
    lowest_means: str = "",
    allowed: Allowed | None = None,
    axis: str | bool = True,
    setting: bool = True,
    flag: str | bool = True,
    control: bool = True,
    slider_high: float | None = None,
    slider_step: float | None = None,
) -> T:
    """A dataclass field for an option.

    The type of the default says what is allowed: True or False; any text, or one of `choices`; a number from `low` to
    `high`; for a tuple, any number of `choices`.

    Args:
        default: its type is the type of the field.
        label: label of its control.
        tip: one clause for users, without a full stop at the end.
        infotext: its label in infotext; without one it is not written there.
        choices: names, tables of names, and beginnings of names of files.
        low, high: the range of a number.
        step: an integer is a multiple of it; for other numbers it is only the slider's step.
        extra: integers outside the range that are allowed, too.
        lowest_means: the meaning of the lowest number, if it has one of its own.
        allowed: replaces what follows from the type of the default.
        axis: whether X/Y/Z plot has an axis for it, or the name of the axis if it is not the label.
        setting: whether its default can be changed on the settings page.
        flag: whether the command has a flag for it, or the flag if it is not named like the field.
        control: whether it has a control.
        slider_high, slider_step: highest value and step of its slider, if they are not `high` and `step`.

    Raises:
        TypeError: the default is a number, and `low` or `high` is missing.
    """
    span = _Span(low, high, step, extra, lowest_means)
    kind = allowed or _kind(default, None if choices is None else tuple(choices), span)
    row = Option(
        name="",
        default=default,
        allowed=kind,
        label=label,
        tip=tip,
        infotext=infotext,
        axis=label if axis is True else axis or None,
        setting=setting,
        flag=None if flag is False else "" if flag is True else flag,
        control=control,
        slider=_slider(kind, high if slider_high is None else slider_high, slider_step or step),
    )
    return field(default=default, metadata={_OPTION: row})


@dataclass(frozen=True)
class _Span:
    low: float | None
    high: float | None
    step: float | None
    extra: tuple[int, ...]
    lowest_means: str


def _kind(default: object, choices: tuple[Choice, ...] | None, span: _Span) -> Allowed:
    if choices is not None:
        return Names(choices) if isinstance(default, tuple) else OneOf(choices)
    if isinstance(default, bool):
        return Switch()
    if isinstance(default, str):
        return Text()
    if span.low is None or span.high is None:
        raise TypeError("an option that is a number needs low and high")
    if isinstance(default, int):
        return Integer(int(span.low), int(span.high), int(span.step or 1), span.extra)
    return Number(span.low, span.high, span.lowest_means)


_LONGEST_SLIDER = 1_000_000


def _slider(kind: Allowed, high: float | None, step: float | None) -> tuple[float, float] | None:
    if not isinstance(kind, (Integer, Number)) or high is None or high > _LONGEST_SLIDER:
        return None
    return high, step or (1 if isinstance(kind, Integer) else 0.01)


def rows(kind: type[Settings]) -> Mapping[str, Option]:
    """The options of a class of settings by the names of their fields, in order."""
    found = {}
    for one in fields(kind):
        row: Option = one.metadata[_OPTION]
        found[one.name] = _named(row, one.name)
    return found


def _named(row: Option, name: str) -> Option:
    flag = name.replace("_", "-") if row.flag == "" else row.flag
    return replace(row, name=name, flag=flag)


@dataclass(frozen=True)
class Settings:
    """Base class of all settings. Fields are made by `option`, and checked when settings are created.

    Raises:
        SettingsError: a value that is not allowed; the message names the field, the value and what is allowed.
    """

    TITLE: ClassVar[str] = "settings"
    """What errors call these settings."""
    HEADING: ClassVar[str] = ""
    """Heading in the documentation."""
    NAME: ClassVar[str] = ""
    """Label of the switch that turns the pass on, if there is one."""
    SWITCH: ClassVar[str] = ""
    """The API's name of that switch; it is the first of `api_names`."""
    MODEL: ClassVar[str] = ""
    """Label of the control for the model, if there is one."""
    MODEL_LABEL: ClassVar[str] = ""
    """Label of the model's name in infotext. The model itself is not a field."""
    MODEL_FLAG: ClassVar[str] = ""
    """The command's flag for the model, if there is one; it also turns the pass on."""
    PREFIX: ClassVar[str] = ""
    """Prefix of the fields' names in the API."""
    ELEMENTS: ClassVar[str] = ""
    """Prefix of the fields' names in ids of controls and on the settings page."""
    FLAGS: ClassVar[str] = ""
    """Prefix of those of the command's flags that have no dashes at their start."""

    def __post_init__(self) -> None:
        for name, row in rows(type(self)).items():
            problem = row.problem(getattr(self, name))
            if problem:
                raise SettingsError(type(self), f"{{{name}}} {{0}}", problem)
            self._keep(row)

    def _keep(self, row: Option) -> None:
        value = getattr(self, row.name)
        if isinstance(row.default, tuple):  # the caller may change a list later
            object.__setattr__(self, row.name, row.allowed.normal(value))

    @classmethod
    def api_name(cls, name: str) -> str:
        """The API's name of a field."""
        return cls.PREFIX + name

    @classmethod
    def api_names(cls) -> tuple[str, ...]:
        """The API's names of all fields, after those of the switch and the model if there are any."""
        first = (cls.SWITCH, cls.api_name("model")) if cls.SWITCH else ()
        return (*first, *(cls.api_name(name) for name in rows(cls)))

    @classmethod
    def from_api(cls: type[S], values: Mapping[str, Any], defaults: S) -> S:
        """Settings from values by their names in the API. Other names are ignored, missing ones are as in `defaults`.

        Raises:
            SettingsError: a value that is not allowed.
        """
        known = rows(cls)
        given = {name: values[cls.api_name(name)] for name in known if cls.api_name(name) in values}
        return replace(defaults, **{name: known[name].normalised(value) for name, value in given.items()})

    @classmethod
    def labels(cls) -> dict[str, str]:
        """Infotext labels by the names of their fields."""
        return {name: row.infotext for name, row in rows(cls).items() if row.infotext}

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, Any]) -> S:
        """Settings from names and values; missing ones have their defaults.

        Raises:
            InputError: an unknown name; lists the known ones.
            SettingsError: a value that is not allowed.
        """
        unknown = [name for name in values if name not in rows(cls)]
        if unknown:
            raise InputError(f"unknown {cls.TITLE} {shortened(unknown)}; known are: {', '.join(rows(cls))}")
        return cls(**values)

    def to_infotext(self) -> dict[str, str]:
        """Labels and values for a picture's infotext, without those that are empty or change nothing."""
        known = rows(type(self))
        shown = {
            label: known[name].allowed.write(getattr(self, name))
            for name, label in self.labels().items()
            if self.matters(name)
        }
        return {label: text for label, text in shown.items() if text}

    def with_model(self, model: str) -> dict[str, str]:
        """Labels and values of a pass with the model of this name."""
        return {self.MODEL_LABEL: model, **self.to_infotext()}

    def matters(self, name: str) -> bool:  # noqa: ARG002
        """Whether a field has any effect, given the values of the others."""
        return True

    @classmethod
    def from_infotext(cls: type[S], infotext: Mapping[str, Any]) -> S:
        """Settings from parsed infotext. Other labels are ignored, missing ones have their defaults.

        Raises:
            InputError: a value that is not allowed; the message names the label.
        """
        return cls(**cls.read_infotext(infotext))

    @classmethod
    def read_infotext(cls, infotext: Mapping[str, Any]) -> dict[str, Any]:
        """The values of fields in parsed infotext, each checked on its own.

        Raises:
            InputError: a value that is not allowed; the message names the label.
        """
        given = {name: label for name, label in cls.labels().items() if label in infotext}
        known = rows(cls)
        return {name: _read(known[name], label, infotext[label]) for name, label in given.items()}


def _read(row: Option, label: str, value: Any) -> Any:
    """A value from infotext in the type of its field, checked here so that an error can name the label."""
    if isinstance(value, str):
        value = row.allowed.read(value.strip())
    problem = row.problem(value)
    if problem:
        raise InputError(f"{label}: {row.name} {problem}")
    return value
