"""The command: what a user sees. Bad input is one sentence and exit code 2, and nothing is written."""

import argparse
import io
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_latent_upscale.interpolation import INTERPOLATIONS
from lib_latent_upscale.schedules import SCHEDULES
from lib_latent_upscale.standalone.commands.cli import build_parser, main, quiet_libraries
from lib_latent_upscale.standalone.engine import models
from lib_latent_upscale.standalone.engine.engine import Engine
from tests.standalone.parameters import parse_parameters

ROOT = Path(__file__).resolve().parents[2]


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def upscale(source, sd1_folder, *more):
    return main(["upscale", str(source), "--model", str(sd1_folder), "--steps", "2", "--quiet", *map(str, more)])


def run_python(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False, **options
    )


def test_a_picture_becomes_larger_and_carries_its_parameters(picture_file, sd1_folder, tmp_path, capsys):
    output = tmp_path / "out.png"
    assert upscale(picture_file, sd1_folder, "-o", output, "--prompt", "a cat", "--seed", "7") == 0
    assert capsys.readouterr().out == f"{output}\n"
    with Image.open(output) as image:
        assert image.size == (256, 192)
        generation = parse_parameters(image.info["parameters"])
    assert (generation.prompt, generation.seed, generation.model) == ("a cat", 7, "tiny-sd1")


def test_the_command_says_which_model_runs(picture_file, sd1_folder, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    assert upscale(picture_file, sd1_folder, "-o", tmp_path / "a.png", "--prompt", "a cat") == 0
    assert "Model: tiny-sd1." in caplog.messages
    assert "ignores" not in caplog.text
    caplog.clear()
    monkeypatch.setattr(models, "DEMO_FILE", sd1_folder)
    assert upscale(picture_file, "demo", "-o", tmp_path / "b.png") == 0
    assert caplog.messages[0].startswith("Model: demo: for demonstrations")
    assert len(caplog.messages) == 1
    assert upscale(picture_file, "demo", "-o", tmp_path / "c.png", "--prompt", "a cat") == 0
    assert caplog.messages[-1] == "The prompt is recorded in the picture, but the demo model ignores it."


def test_the_same_command_twice_gives_the_same_file(picture_file, sd1_folder, tmp_path):
    for name in ("a.png", "b.png"):
        assert upscale(picture_file, sd1_folder, "-o", tmp_path / name) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_without_a_name_the_result_lies_beside_the_picture(picture_file, sd1_folder):
    assert upscale(picture_file, sd1_folder, "--size", "100x60") == 0
    with Image.open(picture_file.with_name("photo-100x60.png")) as image:
        assert image.size == (100, 60)


def test_transparency_survives_the_upscale(sd1_folder, tmp_path):
    source = Image.effect_noise((64, 64), 50).convert("RGBA")
    source.putalpha(Image.linear_gradient("L").resize((64, 64)))
    source.save(tmp_path / "glass.png")
    assert upscale(tmp_path / "glass.png", sd1_folder, "-o", tmp_path / "out.png") == 0
    with Image.open(tmp_path / "out.png") as image:
        alpha = np.asarray(image.getchannel("A").resize((64, 64), Image.Resampling.BOX), int)
    assert np.abs(alpha - np.asarray(source.getchannel("A"))).max() <= 2


def test_a_random_seed_is_written_down(picture_file, sd1_folder, tmp_path):
    assert upscale(picture_file, sd1_folder, "-o", tmp_path / "a.png", "--seed", "-1") == 0
    with Image.open(tmp_path / "a.png") as image:
        seed = parse_parameters(image.info["parameters"]).seed
    assert upscale(picture_file, sd1_folder, "-o", tmp_path / "b.png", "--seed", seed) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such pipes")
@pytest.mark.parametrize("flag", ["", "--like", "--model", "--learned", "--tile-controlnet"])
def test_a_pipe_is_refused_and_not_waited_for(picture_file, tmp_path, flag):
    os.mkfifo(tmp_path / "pipe.png")
    given = [flag, tmp_path / "pipe.png"] if flag else []
    source = picture_file if flag else tmp_path / "pipe.png"
    done = run_python("-m", "lib_latent_upscale", "upscale", *map(str, (source, *given, "--quiet")), timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_names_and_values_that_begin_like_an_option_are_told_how_they_are_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("-a.png").touch()
    for arguments, said in (
        (["a.png", "-a.png"], "a name that begins with - is written ./-a.png"),
        (["a.png", "--size", "-5x5"], "--size: expected one argument; one that begins with - is written with ="),
    ):
        with pytest.raises(SystemExit):
            main(["upscale", *arguments])
        assert said in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="its pipes end otherwise")
@pytest.mark.parametrize(("argument", "unbuffered"), [("schedules", ""), ("schedules", "1"), ("--help", "")])
def test_a_reader_that_ends_early_is_told_in_a_sentence(argument, unbuffered):
    """As in `latent-upscale schedules | head -1`; Python's own words for it are a warning at its end."""
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-m", "lib_latent_upscale", argument]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(write)
    assert done.stderr == "latent-upscale: the program that read the output has ended.\n"
    assert done.returncode == 1


@pytest.fixture
def album(tmp_path, photo):
    """Three pictures, two of one size; beside them something that is no picture."""
    folder = tmp_path / "album"
    folder.mkdir()
    photo.save(folder / "a.png")
    photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "b.png")
    photo.resize((64, 64)).save(folder / "a.jpg")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_a_folder_becomes_a_folder(album, sd1_folder, tmp_path):
    assert upscale(album, sd1_folder, "--batch-size", "2") == 0
    results = tmp_path / "album-upscaled"
    assert sorted(path.name for path in results.iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]
    assert upscale(album / "b.png", sd1_folder, "-o", tmp_path / "alone.png") == 0
    with Image.open(tmp_path / "alone.png") as alone, Image.open(results / "b.png") as together:
        assert np.abs(np.asarray(alone, int) - np.asarray(together)).max() <= 1


def test_one_bad_picture_does_not_stop_the_others(album, sd1_folder, tmp_path, capsys):
    (album / "c.png").write_bytes(b"no picture")
    cut = (album / "a.png").read_bytes()
    (album / "d.png").write_bytes(cut[: len(cut) // 2])
    results = tmp_path / "results"
    assert upscale(album, sd1_folder, "-o", results) == 1
    assert sorted(path.name for path in results.iterdir()) == ["a.jpg.png", "a.png.png", "b.png"]
    shown = capsys.readouterr().err
    assert "2 of 5 pictures could not be used" in shown
    assert "c.png: not a picture" in shown
    assert "d.png: the picture is damaged or truncated" in shown


def test_progress_bars_for_pictures_and_folder(album, sd1_folder, tmp_path, capsys):
    assert main(["upscale", str(album), "--model", str(sd1_folder), "--steps", "2", "-o", str(tmp_path / "o")]) == 0
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "3/3" in shown


BAD_ARGUMENTS = {
    "unknown method": (["--method", "cubic"], "nearest-exact"),
    "unknown scheduler": (["--scheduler", "carras"], "karras"),
    "unknown sampler": (["--sampler", "Oiler"], "Euler a"),
    "steps 0": (["--steps", "0"], "1 to 1000"),
    "steps -1": (["--steps", "-1"], "1 to 1000"),
    "steps 10,000": (["--steps", "10,000"], "10,000"),
    "steps 10000": (["--steps", "10000"], "1 to 1000"),
    "denoise -0.1": (["--denoise", "-0.1"], "0 to 1"),
    "denoise 1.1": (["--denoise", "1.1"], "0 to 1"),
    "denoise nan": (["--denoise", "nan"], "0 to 1"),
    "scale 0": (["--scale", "0"], "0.25 to 8"),
    "scale 100": (["--scale", "100"], "0.25 to 8"),
    "scale nan": (["--scale", "nan"], "0.25 to 8"),
    "size 0x0": (["--size", "0x0"], "16 to 8192"),
    "size 12x": (["--size", "12x"], "16 to 8192"),
    "size x": (["--size", "x"], "1024x1280"),
    "learned upscaler absent": (["--learned", "absent.safetensors"], "there is no such file"),
    "scale and size": (["--size", "64x64", "--scale", "2"], "not allowed with"),
    "batch size 0": (["--batch-size", "0"], "1 or more"),
    "seed": (["--seed", "-2"], "Seed"),
    "model missing": (["--model", "none.safetensors"], "does not exist"),
    "model a pickle": (["--model", "{here}/model.ckpt"], "pickle"),
    "model corrupt": (["--model", "{here}/corrupt.safetensors"], "damaged"),
    "model no folder": (["--model", "{here}"], "model_index.json"),
    "device": (["--device", "abacus"], "abacus"),
    "device without values": (["--device", "meta"], "'meta' cannot be used"),
    "prompt not UTF-8": (["--prompt", "caf\udce9"], "Prompt has half of a character"),
    "negative prompt not UTF-8": (["--negative-prompt", "caf\udce9"], "Negative prompt has half"),
    "dtype": (["--dtype", "int4"], "bfloat16"),
    "output folder missing": (["-o", "{here}/none/out.png"], "does not exist"),
    "output is the input": (["-o", "{here}/photo.png"], "replace the original"),
    "output no png": (["-o", "{here}/out.bmp"], ".png or .jpg"),
    "unknown option": (["--stepps", "3"], "--stepps"),
}


@pytest.mark.parametrize(("more", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_bad_arguments_are_one_sentence(picture_file, sd1_folder, capsys, more, message):
    here = picture_file.parent
    (here / "model.ckpt").write_bytes(b"pickle")
    (here / "corrupt.safetensors").write_bytes(b"rubbish")
    before = tree(here)
    more = [part.format(here=here) for part in more]
    model = [] if "--model" in more else ["--model", str(sd1_folder)]
    _assert_refused(["upscale", str(picture_file), *model, *more], message, capsys)
    assert tree(here) == before


def _assert_refused(arguments, message, capsys):
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse's own way
        code = stop.code
    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    assert message in shown.err


@pytest.mark.parametrize(("more", "message"), [((), "one picture"), (("photo.png",), "2 were given")])
def test_a_comparison_takes_one_picture(picture_file, capsys, monkeypatch, more, message):
    monkeypatch.chdir(picture_file.parent)
    other = picture_file.with_name("other.png")
    other.write_bytes(picture_file.read_bytes())
    _assert_refused(["compare", "other.png" if more else ".", *more], message, capsys)


def test_a_missing_package_is_named_with_the_command_that_mends_it(picture_file, capsys, monkeypatch):
    for name in ("gradio", "diffusers"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["upscale", str(picture_file), "--quiet"]) == 1
    shown = capsys.readouterr().err
    assert "the package diffusers is missing" in shown
    assert 'pip install "latent-upscale[standalone]"' in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "tiny", "folder without pictures"])
def test_bad_pictures_are_one_sentence(tmp_path, picture_file, sd1_folder, capsys, kind):
    path = tmp_path / kind
    content = {"empty": b"", "text": b"hello", "truncated": picture_file.read_bytes()[:-3000]}
    if kind in content:
        path.write_bytes(content[kind])
    elif kind == "tiny":
        Image.new("RGB", (1, 1)).save(path, "PNG")
    elif kind != "missing":
        path.mkdir()
    _assert_refused(["upscale", str(path), "--model", str(sd1_folder)], kind, capsys)
    assert not list(tmp_path.glob("*-*"))


@pytest.mark.parametrize(
    ("output", "message"), [("album", "among the originals"), ("file", "is a file"), ("file/deep", "does not exist")]
)
def test_bad_folders_for_results_are_one_sentence(album, sd1_folder, tmp_path, capsys, output, message):
    (tmp_path / "file").touch()
    arguments = ["upscale", str(album), "-o", str(tmp_path / output), "--model", str(sd1_folder)]
    _assert_refused(arguments, message, capsys)


def test_bad_settings_for_a_folder_end_before_the_folder_is_made(album, sd1_folder, tmp_path, capsys):
    arguments = ["upscale", str(album), "-o", str(tmp_path / "o"), "--model", str(sd1_folder), "--steps", "0"]
    _assert_refused(arguments, "1 to 1000", capsys)
    assert not (tmp_path / "o").exists()


def test_out_of_memory_is_a_sentence(picture_file, sd1_folder, capsys, monkeypatch):
    def exhausted(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    monkeypatch.setattr(Engine, "upscale", exhausted)
    assert upscale(picture_file, sd1_folder) == 1
    assert "out of memory; try a smaller --size" in capsys.readouterr().err


def test_a_full_disk_is_a_sentence(picture_file, sd1_folder, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    before = tree(picture_file.parent)
    monkeypatch.setattr(Path, "write_bytes", full)
    assert upscale(picture_file, sd1_folder) == 1
    assert "No space left" in capsys.readouterr().err
    assert tree(picture_file.parent) == before


@pytest.mark.skipif(os.name == "nt", reason="names there are Unicode")
@pytest.mark.parametrize(
    ("name", "encoding", "shown"),
    [
        (b"bad\xff.png", "utf-8", b"bad\xff-128x96.png"),
        ("日本.png".encode(), "cp1252", rb"\u65e5\u672c-128x96.png"),
        ("日本.png".encode(), "utf-8", "日本-128x96.png".encode()),
    ],
)
def test_names_of_any_script_are_shown(picture_file, sd1_folder, monkeypatch, name, encoding, shown):
    """A folder with one such name would end in the middle."""
    out = io.BytesIO()
    source = picture_file.rename(picture_file.with_name(os.fsdecode(name)))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    assert upscale(source, sd1_folder, "--scale", "1") == 0
    sys.stdout.flush()
    assert out.getvalue().endswith(shown + b"\n")


def test_the_command_works_without_a_stdout(picture_file, sd1_folder, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert upscale(picture_file, sd1_folder, "--scale", "1") == 0
    monkeypatch.undo()
    assert len(list(picture_file.parent.iterdir())) == 2


def test_names_cannot_send_commands_to_the_terminal(sd1_folder, capsys):
    bad = "a\x1b]0;title\u202egnp.png"
    assert upscale(bad, sd1_folder) == 2
    assert main(["upscale", bad, "other.png", "--model", str(sd1_folder)]) == 1
    shown = capsys.readouterr().err
    assert shown.count(r"a\x1b]0;title\u202egnp.png: no such file") == 2
    assert "\x1b]0" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    "command",
    [
        *(["upscale", "a.png", flag] for flag in ("-o", "--like", "--learned", "--model", "--tile-controlnet", "--x4")),
        *(["compare", "a.png", flag] for flag in ("-o", "--html", "--reference", "--model", "--tile-controlnet")),
        *(["x4", "a.png", flag] for flag in ("-o", "--model")),
        *(["app", flag] for flag in ("--model", "--tile-controlnet", "--x4")),
        ["schedules", "-o"],
        ["convert", "a.pt", "-o"],
    ],
    ids=" ".join,
)
def test_an_empty_name_is_not_the_current_folder(command, capsys):
    """`-o "$OUT"` where the variable is not set."""
    with pytest.raises(SystemExit) as ended:
        main([*command, ""])
    assert ended.value.code == 2
    assert "the name is empty" in capsys.readouterr().err


def test_libraries_advice_to_developers_is_not_shown():
    with warnings.catch_warnings(record=True) as shown:
        quiet_libraries()
        for module in ("huggingface_hub.utils._validators", "PIL.TiffImagePlugin"):
            warnings.warn_explicit("an argument is deprecated", UserWarning, "library.py", 1, module=module)
        warnings.warn_explicit("ours", UserWarning, "ours.py", 1, module="lib_latent_upscale.x")
    assert [str(one.message) for one in shown] == ["ours"]


def test_pictures_behind_options_are_told_where_to_go(picture_file, capsys):
    with pytest.raises(SystemExit):
        main(["upscale", str(picture_file), "--steps", "2", "other.png"])
    assert "other.png; give all pictures together, before or after all options" in capsys.readouterr().err


def test_other_errors_are_not_hidden(picture_file, sd1_folder, monkeypatch):
    def fault(*_, **__):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Engine, "upscale", fault)
    with pytest.raises(RuntimeError, match="ours"):
        upscale(picture_file, sd1_folder)


def test_an_interrupt_while_writing_leaves_nothing_half_done(picture_file, sd1_folder, capsys, monkeypatch):
    before = tree(picture_file.parent)

    def interrupted(self, content):
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    assert upscale(picture_file, sd1_folder) == 130
    assert "nothing half-finished" in capsys.readouterr().err
    assert tree(picture_file.parent) == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_stops_a_running_command(picture_file, sd1_folder):
    command = [sys.executable, "-m", "lib_latent_upscale", "upscale", str(picture_file), "--model", str(sd1_folder)]
    process = subprocess.Popen(
        [*command, "--steps", "1000"], stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    try:
        shown = b""
        while b"/1000" not in shown:
            part = process.stderr.read1()
            assert part, shown
            shown += part
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert b"Traceback" not in rest
    assert list(picture_file.parent.iterdir()) == [picture_file]


@pytest.mark.parametrize("command", [[], ["upscale"], ["x4"], ["compare"], ["schedules"], ["app"]])
def test_help_imports_nothing_heavy(command):
    """Whatever takes seconds to import; with it --help would."""
    code = (
        "import sys, contextlib\nfrom lib_latent_upscale.standalone.commands.cli import main\n"
        f"with contextlib.suppress(SystemExit): main({[*command, '--help']!r})\n"
        "heavy = {'torch', 'numpy', 'PIL', 'scipy', 'diffusers', 'gradio', 'matplotlib', 'k_diffusion'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    assert "usage: latent-upscale" in done.stdout


def test_help_names_everything_that_can_be_chosen(capsys):
    with pytest.raises(SystemExit):
        main(["upscale", "--help"])
    shown = " ".join(capsys.readouterr().out.split()).replace("- ", "-")  # lines are broken behind hyphens, too
    assert ", ".join(INTERPOLATIONS) in shown
    assert ", ".join(SCHEDULES) in shown
    assert "DPM++ 2M SDE" in shown


def test_every_subcommand_has_a_module_that_runs():
    actions = build_parser()._actions
    commands = next(action for action in actions if isinstance(action, argparse._SubParsersAction)).choices
    assert list(commands) == ["upscale", "x4", "compare", "schedules", "convert", "app"]


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("latent-upscale 0.")
