"""One root of exceptions, and what callers catch."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from lib_latent_upscale import errors, options
from lib_latent_upscale.errors import (
    GenerationError,
    InputError,
    Interrupted,
    LatentUpscaleError,
    NotFinite,
    OutOfMemory,
)
from lib_latent_upscale.memory import is_out_of_memory

PACKAGE = Path(errors.__file__).parent
CLASSES = {name for name, _ in inspect.getmembers(errors, inspect.isclass)} | {"SettingsError", "ArgumentError"}


def bases() -> dict[str, list[str]]:
    """Names of the bases of every class of exceptions in the package's sources, hosts included."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                found[node.name] = [ast.unparse(base).split(".")[-1] for base in node.bases]
    return {name: of for name, of in found.items() if is_exception(name, found)}


def is_exception(name: str, found: dict[str, list[str]]) -> bool:
    builtin = getattr(__import__("builtins"), name, None)
    if isinstance(builtin, type):
        return issubclass(builtin, BaseException)
    return name.endswith(("Error", "Exception", "Warning")) or any(
        is_exception(one, found) for one in found.get(name, [])
    )


def test_every_exception_of_the_package_has_the_one_root():
    found = bases()
    assert found.pop("LatentUpscaleError") == ["Exception"]
    assert {"InputError", "SettingsError", "ArgumentError", "Interrupted", "OutOfMemory"} <= found.keys()
    ours = CLASSES
    assert [name for name, of in found.items() if not ours.intersection(of)] == []


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"(?m)^( *[│├└─ ]*)([A-Z]\w+)", errors.__doc__.split("\n\n")[1])
    assert {name for _, name in drawn} == CLASSES
    above: list[tuple[int, str]] = []
    for before, name in drawn:
        above = [one for one in above if one[0] < len(before)]
        kind = getattr(errors, name, getattr(options, name, None))
        if above and kind is not None:
            assert above[-1][1] in {base.__name__ for base in kind.__bases__}
        above.append((len(before), name))


@pytest.mark.parametrize(
    ("kind", "caught_as"),
    [
        (InputError, ValueError),
        (options.SettingsError, ValueError),
        (GenerationError, RuntimeError),
        (NotFinite, InputError),
        (OutOfMemory, RuntimeError),
        (Interrupted, LatentUpscaleError),
    ],
)
def test_what_callers_have_caught_is_caught(kind, caught_as):
    assert issubclass(kind, caught_as)


def test_numbers_that_are_none_are_no_lack_of_memory():
    assert not is_out_of_memory(NotFinite("not finite"))
