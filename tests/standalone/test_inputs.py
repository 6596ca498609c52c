"""Which pictures a command line means, and where their results go."""

import os
from pathlib import Path

import pytest
from PIL import Image

from lib_latent_upscale.errors import InputError
from lib_latent_upscale.standalone.commands.cli import main
from lib_latent_upscale.standalone.files.folders import Results, results_folder
from lib_latent_upscale.standalone.files.inputs import Found, Inputs, find_inputs, find_pictures
from lib_latent_upscale.standalone.files.settings import FileSettings


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder: three pictures, one of them deeper, and what is none."""
    for name in ("a.jpg", "b.jpg", "c.png", "trip/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.effect_noise((48, 32), 50).convert("RGB").save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("notes")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def upscale(sd1_folder, *arguments):
    fixed = ["--model", str(sd1_folder), "--steps", "1", "--scale", "1", "--quiet"]
    return main(["upscale", *map(str, arguments), *fixed])


def made(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_several_pictures_go_into_a_folder_that_is_made(here, sd1_folder, capsys):
    assert upscale(sd1_folder, "a.jpg", "c.png", "a.jpg", "-o", "new/large") == 0
    assert made(here / "new") == ["large/a.png", "large/c.png"]
    shown = capsys.readouterr()
    assert shown.out.split() == [str(Path("new", "large", name)) for name in ("a.png", "c.png")]
    assert "2 pictures: 2 done." in shown.err


def test_several_pictures_without_a_folder_get_theirs_beside_them(here, sd1_folder):
    assert upscale(sd1_folder, "a.jpg", "trip/a.jpg") == 0
    assert {"a-48x32.png", "trip/a-48x32.png"} < set(made(here))


def test_a_pattern_that_the_shell_has_left_is_expanded(here, sd1_folder, capsys):
    assert upscale(sd1_folder, "*.jpg", "-o", "large") == 0
    assert made(here / "large") == ["a.png", "b.png"]
    assert upscale(sd1_folder, "*.webp", "-o", "large") == 2
    assert capsys.readouterr().err.endswith("*.webp: no file matches this name.\n")


def test_a_file_with_a_patterns_name_is_that_file(here):
    (here / "a.jpg").rename(here / "[a].jpg")
    assert find_inputs(["[a].jpg"]).paths == [Path("[a].jpg")]


def test_one_picture_goes_into_a_folder_that_is_named_as_one(here, sd1_folder):
    assert upscale(sd1_folder, "a.jpg", "-o", "large/") == 0
    assert upscale(sd1_folder, "b.jpg", "-o", "large") == 0
    assert made(here / "large") == ["a.png", "b.png"]


def test_subfolders_keep_their_structure_and_results_are_not_taken_for_pictures(here, sd1_folder, capsys):
    for _ in range(2):
        assert upscale(sd1_folder, ".", "--recursive", "-o", "large") == 0
        assert made(here / "large") == ["a.png", "b.png", "c.png", "trip/a.png"]
    assert "4 pictures: 4 skipped (finished before)." in capsys.readouterr().err


def test_what_a_folder_holds_besides_is_said_in_one_line(here, caplog):
    (here / "film.mov").touch()
    caplog.set_level("INFO")
    assert len(find_pictures(here)) == 3
    assert caplog.messages == [
        f"{here}: left out: 1 subfolder (--recursive includes them) and 2 files of other kinds (.mov, .txt)."
    ]
    caplog.clear()
    assert len(find_pictures(here / "trip")) == 1
    assert not caplog.messages


def test_links_in_a_circle_end(here):
    (here / "trip" / "up").symlink_to(here, target_is_directory=True)
    assert len(find_pictures(here, recursive=True)) == 4


def test_a_folder_that_is_named_twice_counts_once(here):
    (here / "trip" / "up").symlink_to(here, target_is_directory=True)
    assert find_inputs(["trip", "trip/", "trip/up/trip"]).folders == [Path("trip")]
    assert len(find_inputs([f"{here}/**"]).folders) == 2


def test_broken_links_are_not_called_files(here, caplog):
    caplog.set_level("INFO")
    (here / "trip" / "gone.png").symlink_to("nowhere.png")
    find_pictures(here / "trip")
    assert caplog.messages == [f"{here / 'trip'}: left out: 1 file of other kinds (broken links and the like)."]


@pytest.mark.parametrize("name", [".", "./", "../{here}", "../{here}/"])
def test_the_current_folder_has_a_place_beside_it(here, sd1_folder, name):
    assert upscale(sd1_folder, name.format(here=here.name)) == 0
    assert made(here.with_name(f"{here.name}-upscaled")) == ["a.png", "b.png", "c.png"]


def test_the_top_folder_has_nothing_beside_it():
    with pytest.raises(InputError, match="name a folder for the results with -o"):
        results_folder(Path(os.sep), "upscaled")


def test_an_empty_name_is_a_sentence(here, sd1_folder, capsys):
    assert upscale(sd1_folder, "") == 2
    assert "name of an input is empty" in capsys.readouterr().err


def test_pictures_of_one_name_from_several_places_keep_it(here, sd1_folder):
    assert upscale(sd1_folder, "a.jpg", "trip/a.jpg", "-o", "large") == 0
    assert made(here / "large") == ["a-1.png", "a.png"]


def test_one_picture_is_no_pictures(here, sd1_folder, capsys):
    assert upscale(sd1_folder, "a.jpg", "-o", "large/") == 0
    assert "\n1 picture: 1 done.\n" in f"\n{capsys.readouterr().err}"


def test_several_folders_keep_their_names_in_one(tmp_path):
    folders = [tmp_path / "x", tmp_path / "y"]
    inputs = Inputs([Found(folder / "a.png", folder) for folder in folders], folders)
    results = Results(inputs, FileSettings(), "upscaled", tmp_path / "o")
    places = [results.place(one, (1, 1), "")[0] for one in inputs.found]
    assert places == [tmp_path / "o" / "x" / "a.png", tmp_path / "o" / "y" / "a.png"]


def test_kinds_that_work_singly_work_in_folders(tmp_path):
    for suffix in ("ppm", "tga", "jp2", "pcx", "bmp", "gif", "webp", "tiff"):
        Image.new("RGB", (16, 16)).save(tmp_path / f"a.{suffix}")
    assert len(find_pictures(tmp_path)) == 8


def test_one_missing_picture_does_not_stop_the_others(here, sd1_folder, capsys):
    assert upscale(sd1_folder, "a.jpg", "none.jpg", "-o", "large") == 1
    shown = capsys.readouterr().err
    assert "2 pictures: 1 done, 1 failed." in shown
    assert "none.jpg: no such file" in shown


def test_a_folder_is_continued(here, sd1_folder, capsys):
    """What is finished is left alone; a changed picture, other settings and a foreign file are not finished."""

    def run(*more):
        assert upscale(sd1_folder, ".", "-o", "large", *more) == 0
        return capsys.readouterr().err.split("pictures: ")[1].split("\n")[0]

    assert run() == "3 done."
    before = {name: (here / "large" / name).read_bytes() for name in made(here / "large")}
    (here / "large" / "b.png").unlink()
    assert run() == "1 done, 2 skipped (finished before)."
    assert {name: (here / "large" / name).read_bytes() for name in made(here / "large")} == before
    Image.new("RGB", (48, 32)).save(here / "c.png")
    assert run() == "1 done, 2 skipped (finished before)."
    assert made(here / "large") == ["a.png", "b.png", "c-1.png", "c.png"]
    assert run() == "3 skipped (finished before)."
    assert run("--seed", "2") == "3 done."
    assert run("--seed", "2") == "3 skipped (finished before)."
    assert run("--no-skip-finished", "--overwrite") == "3 done."


def test_drawn_seeds_are_no_other_settings(here, sd1_folder, capsys):
    for told in ("3 done.", "3 skipped"):
        assert upscale(sd1_folder, ".", "-o", "large", "--seed", "-1") == 0
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_a_folder_of_another_format_is_continued_too(here, sd1_folder, capsys, name):
    for told in ("3 done.", "3 skipped"):
        assert upscale(sd1_folder, ".", "-o", "large", "--format", name) == 0
        assert told in capsys.readouterr().err
    suffix = {"jpeg": "jpg", "webp": "webp"}[name]
    assert made(here / "large") == [f"{stem}.{suffix}" for stem in "abc"]
