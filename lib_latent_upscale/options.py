"""One row per option: `option(...)` makes a dataclass field that knows everything about itself.

    @dataclass(frozen=True)
    class UpscaleSettings(Settings):
        method: str = option(AUTOMATIC, choices=[METHODS], label="Upscale method", infotext="...", tip="...")

The controls of both pages, names and order of the API, infotext both ways, axes of X/Y/Z plot, the settings page, flags
of the command and docs/options.md are loops over `rows(UpscaleSettings)`: a new option is one field, and its use.
Nothing heavy is imported here or by a class of settings, so that `--help` answers at once.
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
"""The name that leaves a choice to whoever runs it, such as the host's own schedule."""

MAX_STEPS = 1000
"""The most steps that a run may ask for."""

_LONGEST = 80
"""Characters of a value that an error repeats."""

T = TypeVar("T")
S = TypeVar("S", bound="Settings")


class SettingsError(InputError):
    """A setting is not allowed: names the field or fields, what was given and what is allowed."""

    def __init__(self, kind: type[Settings], template: str, *values: object) -> None:
        """Describe what is wrong.

        Args:
            kind: whose fields they are.
            template: the sentence; `{weight}` stands for the name of the field weight, `{model}` for that of the
                model, `{0}` for the first of `values`.
            values: what was given, put into the sentence as it is.
        """
        super().__init__(kind, template, *values)
        self.kind = kind
        self._template, self._values = template, values

    def __str__(self) -> str:
        return self.said(lambda name: name)

    def said(self, call: Callable[[str], str]) -> str:
        """The sentence with fields called otherwise: by their labels, or by their names in the API."""
        names = {name: call(name) for name in ("model", *rows(self.kind))}
        return self._template.format(*self._values, **names)

    @property
    def on_page(self) -> str:
        """The sentence for somebody who sees controls: fields are called by their labels."""
        labels = {name: row.label for name, row in rows(self.kind).items()}
        return self.said({"model": self.kind.MODEL, **labels}.__getitem__)

    @property
    def in_call(self) -> str:
        """The sentence for somebody who calls the API: fields are called by their names there."""
        return self.said(self.kind.api_name)


def shortened(value: object) -> str:
    """A value as an error repeats it; of a long one the beginning, and how long it is."""
    text = repr(value[: 2 * _LONGEST] if isinstance(value, (str, bytes)) else value)
    if len(text) <= _LONGEST:
        return text
    length = f" ({len(value)} characters)" if isinstance(value, str) else ""
    return f"{text[:_LONGEST]}...{length}"


@dataclass(frozen=True)
class Table:
    """The names of a table elsewhere, such as `INTERPOLATIONS`, without importing what its functions need."""

    module: str
    name: str

    @property
    def names(self) -> tuple[str, ...]:
        """The table's keys; from its source while nobody has imported it, since it may import torch, for seconds."""
        table = getattr(sys.modules.get(self.module), self.name, None)
        return _keys_in_source(self.module, self.name) if table is None else tuple(table)


@dataclass(frozen=True)
class Further:
    """Names that begin alike, of which only a host knows which there are, such as those of files."""

    start: str
    stands_for: str
    """What stands behind the start, in capital letters."""

    def holds(self, name: str) -> bool:
        """Whether a name is one of these."""
        return name.startswith(self.start) and bool(name[len(self.start) :].strip()) and not _half_character(name)

    @property
    def text(self) -> str:
        """All of them, as one name."""
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
"""A name, or what holds names."""


class Allowed:
    """Which values an option may have, and how they are written in infotext; one class for each kind of value."""

    def problem(self, value: Any) -> str:
        """What is wrong with a value, as "is 7; choose ..."; empty where nothing is."""
        raise NotImplementedError

    @property
    def text(self) -> str:
        """What is allowed, in a few words."""
        raise NotImplementedError

    def normal(self, value: Any) -> Any:
        """The value in its field's own type: sliders of some hosts hand over 20.0 for 20, and 9 for 9.0."""
        return value

    def read(self, text: str) -> Any:
        """The value of a text; the text itself where it is none, which `problem` then refuses."""
        return text

    def write(self, value: Any) -> str:
        """The text of a value; empty where nothing need be written."""
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
    """True or False; 1 and 0 are numbers."""

    def problem(self, value: Any) -> str:
        return "" if isinstance(value, bool) else f"is {shortened(value)}; choose True or False"

    @property
    def text(self) -> str:
        return "on, off"

    def read(self, text: str) -> Any:
        return {"true": True, "yes": True, "false": False, "no": False}.get(text.lower(), text)


@dataclass(frozen=True)
class Chosen(Allowed):
    """Names to choose from; a `Table` stands for its own."""

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
    """A list of dictionaries; what they may hold is checked where they are used."""

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
    """An integer from the lowest to the highest in steps, or one of the extra ones."""

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
        """The lowest of all, extra ones too."""
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
    """A finite number from the lowest, which may mean something of its own, to the highest."""

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
        """The lowest of all."""
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
    """What is wrong with a text that cannot be written in UTF-8; empty where nothing is."""
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
    """An int or a float where `text` is one, else `text`."""
    try:
        number = float(text)
    except ValueError:
        return text
    return int(text) if text.lstrip("+-").isdigit() else number


@dataclass(frozen=True)
class Option:
    """Everything known about one field of settings."""

    name: str
    """The field's."""
    default: Any
    allowed: Allowed
    label: str
    """What stands beside its control. ui-config.json keeps a user's changes under it: it never changes."""
    tip: str
    """One clause for users, without a full stop."""
    infotext: str | None
    """Its label in a picture's infotext, if it is written there. It stands in people's pictures: it never changes."""
    axis: str | None
    """What its axis of X/Y/Z plot is called; None where it has none."""
    setting: bool
    """Whether the settings page holds its default."""
    flag: str | None
    """Of the command, with its dashes, or without them where the settings' own `FLAGS` stand before it; None: none."""
    control: bool
    """Whether it has a control."""
    slider: tuple[float, float] | None
    """The highest value and the step of its slider, where it has one."""

    def problem(self, value: object) -> str:
        """What is wrong with a value; empty where nothing is."""
        return self.allowed.problem(value)

    def brought(self, value: Any) -> Any:
        """A value in the field's own type where it can be; else as it is, for an error to repeat it."""
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
    """A field of a dataclass of settings.

    What is allowed follows from the default's type: True or False; a text, or one of `choices`; a number from `low` to
    `high`; for a tuple, any number of `choices`.

    Args:
        default: of the field; its type is the field's.
        label: what stands beside its control.
        tip: one clause for users who choose, without a full stop.
        infotext: its label in a picture's infotext.
        choices: names, tables that hold names, and what names of files begin with.
        low, high: ends of the range.
        step: of integers, which are then multiples of it; of numbers, the slider's.
        extra: integers outside of the range that mean something of their own.
        lowest_means: what the lowest number means, where that is something of its own.
        allowed: another kind than the default's type says.
        axis: whether it is an axis of X/Y/Z plot, or what that is called if not like the label.
        setting: whether the settings page holds its default.
        flag: whether the command has a flag for it, or what that is called if not like the field.
        control: whether it has a control.
        slider_high, slider_step: of its slider, where they are not `high` and `step`.
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
    """The options of a class of settings by their fields' names, in the order of the fields."""
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
    """Base of all settings, whose fields are made by `option`; invalid ones cannot exist.

    Raises:
        SettingsError: a value that is not allowed; the message names the field, the value and what is allowed.
    """

    TITLE: ClassVar[str] = "settings"
    """How an error calls them."""
    HEADING: ClassVar[str] = ""
    """What stands above them in the documentation."""
    NAME: ClassVar[str] = ""
    """Label of the switch, where there is one."""
    SWITCH: ClassVar[str] = ""
    """The API's name for whether they count at all, where that can be chosen: the first of its names."""
    MODEL: ClassVar[str] = ""
    """Label of the control that chooses the model, where there is one."""
    MODEL_LABEL: ClassVar[str] = ""
    """Label of the infotext under which a host writes the model's name; the model is no part of the settings."""
    MODEL_FLAG: ClassVar[str] = ""
    """Flag of the command that chooses the model and is the switch at once, where there is one."""
    PREFIX: ClassVar[str] = ""
    """What stands before the fields' names in the API."""
    ELEMENTS: ClassVar[str] = ""
    """What stands before the fields' names in ids of controls and in names of the settings page."""
    FLAGS: ClassVar[str] = ""
    """What stands before the flags of the command that have no dashes of their own."""

    def __post_init__(self) -> None:
        for name, row in rows(type(self)).items():
            problem = row.problem(getattr(self, name))
            if problem:
                raise SettingsError(type(self), f"{{{name}}} {{0}}", problem)
            self._keep(row)

    def _keep(self, row: Option) -> None:
        value = getattr(self, row.name)
        if isinstance(row.default, tuple):  # neither the caller's list nor one that can change
            object.__setattr__(self, row.name, row.allowed.normal(value))

    @classmethod
    def api_name(cls, name: str) -> str:
        """A field's name in the API."""
        return cls.PREFIX + name

    @classmethod
    def api_names(cls) -> tuple[str, ...]:
        """All names that the API has for them: first the switch and the model, where there are such."""
        first = (cls.SWITCH, cls.api_name("model")) if cls.SWITCH else ()
        return (*first, *(cls.api_name(name) for name in rows(cls)))

    @classmethod
    def from_api(cls: type[S], values: Mapping[str, Any], defaults: S) -> S:
        """Settings from values by their names in the API, of which others are left out; absent ones as in `defaults`.

        Raises:
            SettingsError: a value that is not allowed.
        """
        known = rows(cls)
        given = {name: values[cls.api_name(name)] for name in known if cls.api_name(name) in values}
        return replace(defaults, **{name: known[name].brought(value) for name, value in given.items()})

    @classmethod
    def labels(cls) -> dict[str, str]:
        """Labels of the infotext by their fields' names."""
        return {name: row.infotext for name, row in rows(cls).items() if row.infotext}

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, Any]) -> S:
        """Settings from names and values; absent ones take the default.

        Raises:
            ValueError: an unknown name (the known ones are listed) or a value that is not allowed.
        """
        unknown = [name for name in values if name not in rows(cls)]
        if unknown:
            raise InputError(f"unknown {cls.TITLE} {shortened(unknown)}; known are: {', '.join(rows(cls))}")
        return cls(**values)

    def to_infotext(self) -> dict[str, str]:
        """Labels and values as they stand in a picture's infotext; what is empty or changes nothing is left out."""
        known = rows(type(self))
        shown = {
            label: known[name].allowed.write(getattr(self, name))
            for name, label in self.labels().items()
            if self.matters(name)
        }
        return {label: text for label, text in shown.items() if text}

    def with_model(self, model: str) -> dict[str, str]:
        """Labels and values of a pass with this model."""
        return {self.MODEL_LABEL: model, **self.to_infotext()}

    def matters(self, name: str) -> bool:  # noqa: ARG002
        """Whether a field has any effect with the values of the others."""
        return True

    @classmethod
    def from_infotext(cls: type[S], infotext: Mapping[str, Any]) -> S:
        """Settings from parsed infotext; other labels are ignored, absent ones take the default.

        Raises:
            ValueError: a value that is not allowed; the message names the label.
        """
        return cls(**cls.read_infotext(infotext))

    @classmethod
    def read_infotext(cls, infotext: Mapping[str, Any]) -> dict[str, Any]:
        """The values that parsed infotext has for fields, each checked on its own.

        Raises:
            InputError: a value that is not allowed; the message names the label.
        """
        given = {name: label for name, label in cls.labels().items() if label in infotext}
        known = rows(cls)
        return {name: _read(known[name], label, infotext[label]) for name, label in given.items()}


def _read(row: Option, label: str, value: Any) -> Any:
    """A value of infotext as its field's type, checked here so that an error can name its label."""
    if isinstance(value, str):
        value = row.allowed.read(value.strip())
    problem = row.problem(value)
    if problem:
        raise InputError(f"{label}: {row.name} {problem}")
    return value
