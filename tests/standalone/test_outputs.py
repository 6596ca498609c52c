"""Where results go: nothing that exists is replaced unasked, and what will be written is known before any work."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.standalone.commands import convert, schedules, upscaler
from lib_latent_upscale.standalone.commands.cli import main
from lib_latent_upscale.standalone.engine.engine import Engine
from lib_latent_upscale.standalone.files.folders import Results
from lib_latent_upscale.standalone.files.inputs import Found, Inputs, find_inputs, find_pictures
from lib_latent_upscale.standalone.files.outputs import Outputs, check_output_folder
from lib_latent_upscale.standalone.files.settings import FileSettings
from lib_latent_upscale.writing import write_whole
from tests.core import latent_files


def upscale(*arguments):
    return main(["upscale", *map(str, arguments), "--steps", "1", "--scale", "1.5", "--quiet"])


def test_a_name_of_ours_moves_on_to_the_next_free_one(tmp_path):
    (tmp_path / "out.png").touch()
    (tmp_path / "out-1.png").touch()
    assert Outputs([]).free(tmp_path / "out.png") == tmp_path / "out-2.png"
    assert Outputs([], overwrite=True).free(tmp_path / "out.png") == tmp_path / "out.png"


def test_a_name_that_was_given_is_refused_where_it_is_taken(tmp_path):
    (tmp_path / "out.png").touch()
    with pytest.raises(InputError, match="exists already; give another name, or --overwrite"):
        Outputs([]).named(tmp_path / "out.png")
    assert Outputs([], overwrite=True).named(tmp_path / "out.png") == tmp_path / "out.png"


def test_a_picture_that_goes_in_is_never_replaced_not_even_through_a_link_or_when_asked(tmp_path):
    original = tmp_path / "photo.png"
    original.touch()
    link = tmp_path / "link.png"
    link.symlink_to(original)
    for path in (original, link, tmp_path / "." / "photo.png"):
        with pytest.raises(InputError, match="replace the original"):
            Outputs([original], overwrite=True).named(path)
    assert Outputs([original], overwrite=True).free(original) == tmp_path / "photo-1.png"


def test_two_results_never_have_one_name(tmp_path):
    outputs = Outputs([])
    assert outputs.free(tmp_path / "a.png") != outputs.free(tmp_path / "A.png"), "one file on Windows and macOS"
    with pytest.raises(InputError, match="two results"):
        outputs.named(tmp_path / "a.png")


@pytest.mark.parametrize("links", [True, False])
def test_what_another_run_has_written_meanwhile_is_not_replaced(tmp_path, monkeypatch, links):
    def unsupported(*_):
        raise PermissionError(errno.EPERM, "as on a memory card")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", unsupported)
    path = tmp_path / "out.png"
    path.write_bytes(b"theirs")
    assert write_whole(path, b"ours", overwrite=False) == tmp_path / "out-1.png"
    assert write_whole(tmp_path / "new.png", b"new", overwrite=False) == tmp_path / "new.png"
    found = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    assert found == {"out.png": b"theirs", "out-1.png": b"ours", "new.png": b"new"}
    assert write_whole(path, b"ours", overwrite=True) == path
    assert path.read_bytes() == b"ours"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_appears_while_a_plot_is_drawn_or_a_file_converted_is_kept(
    tmp_path, monkeypatch, capsys, overwrite
):
    """Checked before the work, and once more when the result gets its name."""

    def slow(work, target):
        def worked(*arguments):
            target.write_bytes(b"theirs")
            return work(*arguments)

        return worked

    pickle, plot, weights = (tmp_path / name for name in ("own.pt", "plot.png", "own.safetensors"))
    torch.save(latent_files.nnlatent(), pickle)
    monkeypatch.setattr(schedules, "plot_rows", slow(schedules.plot_rows, plot))
    monkeypatch.setattr(convert, "converted_pickle", slow(convert.converted_pickle, weights))
    more = ["--overwrite"] if overwrite else []
    assert main(["schedules", "--scheduler", "simple", "-o", str(plot), *more]) == 0
    assert main(["convert", str(pickle), *more]) == 0
    ours = [path if overwrite else path.with_name(f"{path.stem}-1{path.suffix}") for path in (plot, weights)]
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith(str(tmp_path))] == [str(path) for path in ours]
    assert all(path.stat().st_size > 1000 for path in ours)
    if not overwrite:
        assert plot.read_bytes() == weights.read_bytes() == b"theirs"


@pytest.mark.parametrize("kind", ["single", "folder", "compare"])
def test_two_runs_at_once_lose_nothing(picture_file, sd1_folder, tmp_path, monkeypatch, capsys, kind):
    """The other run writes while this one works, under the very names that were free before."""
    out = tmp_path / "out"
    out.mkdir()
    theirs = [out / f"photo{suffix}" for suffix in (".png", ".json", ".html")]

    def slow(*arguments, **options):
        for path in theirs:
            path.write_bytes(b"theirs")
        return work(*arguments, **options)

    work = Engine.prepare
    monkeypatch.setattr(Engine, "prepare", slow)
    command = "compare" if kind == "compare" else "upscale"
    source, output = (picture_file.parent, out) if kind == "folder" else (picture_file, out / "photo.png")
    more = ["-o", output, "--model", sd1_folder, "--steps", "1", "--scale", "1", "--quiet"]
    assert main([command, *map(str, (source, *more))]) == 0
    assert {path.read_bytes() for path in theirs} == {b"theirs"}
    ours = theirs if kind == "compare" else theirs[:1]
    written = [path.with_name(f"{path.stem}-1{path.suffix}") for path in ours]
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    assert all(path.is_file() for path in written)


def test_what_belongs_together_has_one_number(tmp_path):
    (tmp_path / "s.json").touch()
    found = Outputs([]).together([tmp_path / "s.png", tmp_path / "s.json", tmp_path / "s.html"])
    assert [path.name for path in found] == ["s-1.png", "s-1.json", "s-1.html"]


def test_three_pictures_of_a_folder_give_three_results(tmp_path):
    sources = [tmp_path / name for name in ("a.jpg", "a.jpg.png", "a.png")]
    inputs = Inputs([Found(source, tmp_path) for source in sources], [tmp_path])
    results = Results(inputs, FileSettings(), "upscaled", tmp_path / "o")
    paths = [results.place(one, (1, 1), "")[0] for one in inputs.found]
    assert len({path.name for path in paths}) == 3


def test_a_name_that_gets_too_long_fails_alone_and_a_long_one_can_be_written(tmp_path):
    long, longest = tmp_path / f"{'x' * 251}.png", tmp_path / f"{'y' * 252}.jpg"
    inputs = Inputs([Found(long, tmp_path), Found(longest, tmp_path)], [tmp_path])
    results = Results(inputs, FileSettings(), "upscaled", tmp_path / "o")
    (tmp_path / "o").mkdir()
    with pytest.raises(InputError, match="longer than 255 bytes"):
        results.place(inputs.found[1], (1, 1), "")
    write_whole(results.place(inputs.found[0], (1, 1), "")[0], b"whole")
    assert (tmp_path / "o" / long.name).read_bytes() == b"whole"


def test_outputs_that_cannot_be_written_are_refused(tmp_path, monkeypatch):
    source = tmp_path / "in.png"
    source.touch()
    for path, message in [
        (tmp_path / "none" / "out.png", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "out.jpg", r"end in \.png"),
    ]:
        with pytest.raises(InputError, match=message):
            Outputs([source]).named(path)
    for folder, message in [(source, "this is a file"), (tmp_path, "among the originals")]:
        with pytest.raises(InputError, match=message):
            check_output_folder(folder, tmp_path)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(InputError, match="not writable"):
        Outputs([]).named(tmp_path / "out.png")


def test_a_folder_that_may_not_be_written_is_refused_before_any_work_wherever_results_go(tmp_path, monkeypatch):
    """Also that of one picture among others, whose result goes beside it, and a subfolder that is there already."""
    for place in ("in", "in/sub", "locked", "out/sub"):
        (tmp_path / place).mkdir(parents=True)
    for name in ("in/a.png", "in/sub/b.png", "locked/c.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    locked = [tmp_path / "locked", tmp_path / "out" / "sub"]
    monkeypatch.setattr("os.access", lambda path, *_: Path(path) not in locked)  # root may write everywhere
    several = find_inputs([str(tmp_path / "in" / "a.png"), str(tmp_path / "locked" / "c.png")])
    with pytest.raises(InputError, match="locked is not writable"):
        Results(several, FileSettings(), "upscaled").check()
    deep = find_inputs([str(tmp_path / "in")], recursive=True)
    with pytest.raises(InputError, match="sub is not writable"):
        Results(deep, FileSettings(), "upscaled", tmp_path / "out").check()
    Results(deep, FileSettings(), "upscaled").check()


def test_hidden_files_and_what_an_interrupted_run_left_are_no_pictures(tmp_path):
    for name in ("._a.png", ".latent-upscale-x1.png", "a.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    assert [path.name for path in find_pictures(tmp_path)] == ["a.png"]


def test_a_second_run_replaces_nothing(picture_file, sd1_folder):
    results = []
    for strength in ("0.2", "0.6"):
        assert upscale(picture_file, "--model", sd1_folder, "--denoise", strength) == 0
        results.append(sorted(path.name for path in picture_file.parent.glob("photo-*.png")))
    assert len(results[1]) == len(results[0]) + 1


@pytest.mark.parametrize(
    ("arguments", "touched", "message"),
    [
        (["-o", "ref.png", "--reference", "ref.png"], [], "replace the original"),
        (["-o", "package.png"], ["package.json"], "exists already"),
        (["-o", "sheet.png", "--difference"], ["sheet-difference.png"], "exists already"),
        (["-o", "sheet.png", "--html", "page.html"], ["page.html"], "exists already"),
    ],
)
def test_a_comparison_replaces_none_of_the_files_beside_it(
    picture_file, sd1_folder, tmp_path, monkeypatch, capsys, arguments, touched, message
):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (256, 192)).save("ref.png")
    for name in touched:
        (tmp_path / name).write_text("somebody's")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert main(["compare", str(picture_file), "--model", str(sd1_folder), "--steps", "1", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_one_picture_that_becomes_too_large_does_not_stop_the_others(sd1_folder, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    Image.new("RGB", (6000, 16)).save(folder / "wide.png")
    assert upscale(folder, "--model", sd1_folder, "-o", tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.png"]
    assert "wide.png: The result's size 9000x24 is out of range" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (errno.EINVAL, 1, "3 pictures: 2 done, 1 failed."),
        (errno.ENOSPC, 1, "3 pictures: 1 done, 2 not begun."),
    ],
)
def test_a_name_that_the_disk_does_not_take_fails_alone_and_a_full_disk_ends_the_run_with_its_summary(
    sd1_folder, tmp_path, capsys, monkeypatch, number, code, told
):
    def write(path, content, *, overwrite):
        if path.name == "b.png":
            raise OSError(number, os.strerror(number), str(path))
        return write_whole(path, content, overwrite=overwrite)

    for name in "abc":
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "in" / f"{name}.png")
    monkeypatch.setattr(upscaler, "write_whole", write)
    assert upscale(tmp_path / "in", "--model", sd1_folder, "-o", tmp_path / "out") == code
    shown = capsys.readouterr().err
    assert told in shown
    assert os.strerror(number) in shown
    assert str(tmp_path / "out" / "b.png") in shown


@pytest.mark.skipif(os.name == "nt", reason="no signals that a process can catch")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_request_to_end_leaves_no_half_written_file(tmp_path, name):
    code = (
        "import pathlib, signal, time\n"
        "from lib_latent_upscale.standalone.commands import cli\n"
        "from lib_latent_upscale.writing import write_whole\n"
        "def slow(part, content):\n"
        "    part.touch()\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(30)\n"
        "pathlib.Path.write_bytes = slow\n"
        f"signal.signal(signal.{name}, signal.SIG_DFL)\n"  # the tests themselves may run under nohup
        "cli._end_orderly()\n"
        f"write_whole(pathlib.Path({str(tmp_path)!r}, 'p.png'), b'half')\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        assert list(tmp_path.iterdir())
        process.send_signal(signal.Signals[name])
        assert process.wait(20) == 128 + signal.Signals[name]
    assert list(tmp_path.iterdir()) == []
