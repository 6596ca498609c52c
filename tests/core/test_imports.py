"""The direction of imports: scripts -> webui -> core <- standalone, inside functions, too."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "lib_latent_upscale"
HOSTS = {f"{PACKAGE}.webui", f"{PACKAGE}.standalone"}
WEBUI_MODULES = {"modules", "modules_forge", "scripts", "backend", "ldm_patched"}

OTHER_ROOMS = {f"{PACKAGE}.webui.{room}" for room in ("compare", "dispatch", "passes", "request", "run", "ui")}
"""Of the WebUI, which ask `webui/host` and are not asked by it."""

ROOMS: dict[str, dict[str, set[str]]] = {
    "webui": {
        "webui/host": {f"{PACKAGE}.standalone", *OTHER_ROOMS},
        "webui": WEBUI_MODULES | {f"{PACKAGE}.standalone"},
    },
    "standalone": {
        "standalone/engine": WEBUI_MODULES | {f"{PACKAGE}.webui", f"{PACKAGE}.standalone.commands"},
        "standalone": WEBUI_MODULES | {f"{PACKAGE}.webui"},
    },
}
"""What each host may not import, by folders; the first that a file lies in counts."""

AT_THE_TOP = {"torch", "numpy", "PIL", "safetensors", PACKAGE, *sys.stdlib_module_names}
LATER = {"k_diffusion", "scipy"}
"""What the core may import, inside functions: k_diffusion takes seconds; scipy comes with it."""
LATER_IN = {
    "x4_upscaler": {"accelerate", "diffusers", "huggingface_hub", "psutil", "tokenizers", "transformers"},
    "comparison": {"piq", "skimage"},
    "memory": {"psutil"},
}
"""What single parts of the core may import besides: where a model is loaded, and where pictures are measured."""


def waits(node: ast.AST) -> bool:
    """Whether what stands in it is not run when the file is imported."""
    if isinstance(node, ast.If):
        return ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING"
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))


def imports(source: str, package: str) -> Iterator[tuple[str, bool]]:
    """Full names of what a source imports and whether only when needed; `package` resolves relative ones."""
    tree = ast.parse(source)
    inside = {node for outer in ast.walk(tree) if waits(outer) for node in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names = [node.args[0].value] if node.args and isinstance(node.args[0], ast.Constant) else []
        else:
            continue
        yield from ((name, node in inside) for name in names)


def is_below(name: str, parents: set[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def core_may_import(name: str, later: bool, path: str) -> bool:
    if is_below(name, HOSTS):
        return path == f"{PACKAGE}/__main__.py"
    part = Path(path).parts[1].removesuffix(".py")
    return is_below(name, AT_THE_TOP) or (later and is_below(name, LATER | LATER_IN.get(part, set())))


def wrong_imports(path: str, source: str) -> list[str]:
    """Imports that a file at this path (from the root) must not have."""
    parts = Path(path).parts
    found = list(imports(source, ".".join(parts[:-1])))
    if parts[0] == "scripts":
        return [name for name, _ in found if is_below(name, {f"{PACKAGE}.standalone"})]
    if parts[1] in ROOMS:
        forbidden = next(names for room, names in ROOMS[parts[1]].items() if path.startswith(f"{PACKAGE}/{room}/"))
        return [name for name, _ in found if is_below(name, forbidden)]
    return [name for name, later in found if not core_may_import(name, later, path)]


def files() -> list[str]:
    found = [*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "scripts").rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@pytest.mark.parametrize("path", files())
def test_imports_go_the_right_way(path):
    assert wrong_imports(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "source", "wrong"),
    [
        ("lib_latent_upscale/tiling.py", "import gradio as gr", "gradio"),
        ("lib_latent_upscale/tiling.py", "def f():\n    from modules import shared", "modules.shared"),
        ("lib_latent_upscale/tiling.py", "def f():\n    import diffusers", "diffusers"),
        ("lib_latent_upscale/tiling.py", "import k_diffusion", "k_diffusion"),
        ("lib_latent_upscale/tiling.py", "from .webui import init", "lib_latent_upscale.webui.init"),
        ("lib_latent_upscale/tiling.py", "from . import standalone", "lib_latent_upscale.standalone"),
        ("lib_latent_upscale/tiling.py", "def f():\n    importlib.import_module('modules.shared')", "modules.shared"),
        ("lib_latent_upscale/x4_upscaler.py", "from diffusers import UNet", "diffusers.UNet"),
        ("lib_latent_upscale/x4_upscaler/a.py", "from ..webui import b", "lib_latent_upscale.webui.b"),
        ("lib_latent_upscale/standalone/a.py", "def f():\n    from ..webui import b", "lib_latent_upscale.webui.b"),
        ("lib_latent_upscale/standalone/a.py", "import modules.shared", "modules.shared"),
        ("lib_latent_upscale/webui/a.py", "from ..standalone.b import c", "lib_latent_upscale.standalone.b.c"),
        ("lib_latent_upscale/webui/a.py", "def f():\n    from modules import shared", "modules.shared"),
        ("lib_latent_upscale/webui/ui/a.py", "from modules.ui_common import b", "modules.ui_common.b"),
        ("lib_latent_upscale/webui/host/a.py", "from ...standalone import b", "lib_latent_upscale.standalone.b"),
        ("lib_latent_upscale/webui/host/a.py", "from ..run import b", "lib_latent_upscale.webui.run.b"),
        ("lib_latent_upscale/standalone/engine/a.py", "from ..commands import b", f"{PACKAGE}.standalone.commands.b"),
        ("scripts/a.py", "from lib_latent_upscale.standalone import b", "lib_latent_upscale.standalone.b"),
    ],
)
def test_a_wrong_import_is_found(path, source, wrong):
    assert wrong_imports(path, source) == [wrong]


def test_the_host_folder_may_ask_the_host():
    assert wrong_imports("lib_latent_upscale/webui/host/a.py", "from modules import shared") == []


def circle(sources: Mapping[str, str]) -> list[str]:
    """Modules that import one another in a circle, if any; `sources` are by paths from the root.

    Imports inside functions count, too. A package stands for its `__init__.py`.
    """
    names = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in sources}

    def module(name: str) -> str:
        while name and name not in names:
            name = name.rpartition(".")[0]
        return name

    def imported(name: str, path: str) -> set[str]:
        package = path.rpartition("/")[0].replace("/", ".")
        return {module(found) for found, _ in imports(sources[path], package)} - {name, ""}

    try:
        TopologicalSorter({name: imported(name, path) for name, path in names.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_modules_import_one_another():
    assert circle({path: (ROOT / path).read_text(encoding="utf-8") for path in files()}) == []


@pytest.mark.parametrize(
    "other",
    ["from .a import x", "def f():\n    from p.a import x", "from . import a", "if TYPE_CHECKING:\n    import p.a"],
)
def test_a_circle_is_found(other):
    sources = {"p/__init__.py": "", "p/a.py": "from p.c.d import x", "p/c/__init__.py": "", "p/c/d.py": "import p.b"}
    assert set(circle({**sources, "p/b.py": other})) == {"p.a", "p.b", "p.c.d"}
    assert circle({**sources, "p/b.py": "import torch"}) == []


def test_importing_the_core_is_quick_for_a_host():
    """Nothing that takes seconds is loaded when a WebUI starts, which has torch already."""
    heavy = "{'k_diffusion', 'diffusers', 'transformers', 'gradio', 'scipy', 'modules'}"
    imported = "interpolation, schedules, settings, tiling"
    code = f"import sys; from {PACKAGE} import {imported}; print(sorted({heavy} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
