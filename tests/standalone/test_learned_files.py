"""A latent upscaler of the user's own in the command, and converting pickles of such."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lib_latent_upscale.learned import weights_hash
from lib_latent_upscale.learned.files import file_hash
from lib_latent_upscale.standalone.commands.cli import main
from lib_latent_upscale.standalone.engine import models
from lib_latent_upscale.standalone.engine.infotext import read_infotext
from tests.core import latent_files


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "latent-upscaler-v2.1_SDv1-x2.0.safetensors"
    save_file(latent_files.city96(), path)
    return path


def parameters_of(path):
    with Image.open(path) as image:
        return read_infotext(image.info["parameters"]).values


def made(*arguments):
    return main(["upscale", *map(str, arguments), "--steps", "1", "--quiet"])


def test_it_is_what_enlarges(picture_file, sd1_folder, own, tmp_path):
    plain, with_own = tmp_path / "plain.png", tmp_path / "own.png"
    assert made(picture_file, "-o", plain, "--model", sd1_folder) == 0
    assert made(picture_file, "-o", with_own, "--model", sd1_folder, "--learned", own) == 0
    with Image.open(plain) as first, Image.open(with_own) as second:
        assert first.size == second.size
        assert (np.asarray(first) != np.asarray(second)).mean() > 0.5
        assert f"Latent upscale method: learned-latent: {own.stem}" in second.info["parameters"].replace('"', "")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--method", "bicubic"], "give only one of them"),
        (["--scale", "1.5"], "makes pictures 2 times larger"),
    ],
)
def test_what_it_cannot_do_is_said(picture_file, sd1_folder, own, tmp_path, capsys, more, message):
    output = tmp_path / "result.png"
    assert made(picture_file, "-o", output, "--model", sd1_folder, "--learned", own, *more) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_a_file_that_is_no_upscaler_is_refused_before_the_model_is_loaded(
    picture_file, sd1_folder, tmp_path, capsys, monkeypatch
):
    def load(*_, **__):
        raise AssertionError("too late")

    monkeypatch.setattr(models, "load_model", load)
    other, pickle = tmp_path / "other.safetensors", tmp_path / "own.pt"
    save_file({"weight": torch.zeros(2)}, other)
    torch.save(latent_files.nnlatent(), pickle)
    for path, said in ((other, "does not hold a supported latent upscaler"), (pickle, "latent-upscale convert own.pt")):
        assert made(picture_file, "--model", sd1_folder, "--learned", path) == 2
        assert said in capsys.readouterr().err


def test_a_pickle_becomes_a_safetensors_file_with_the_same_numbers(tmp_path, capsys):
    pickle, numbers = tmp_path / "own.pt", latent_files.nnlatent()
    torch.save(numbers, pickle)
    assert main(["convert", str(pickle)]) == 0
    target = pickle.with_suffix(".safetensors")
    assert capsys.readouterr().out.strip() == str(target)
    read = load_file(target)
    assert read.keys() == numbers.keys()
    assert all(torch.equal(read[name], value) for name, value in numbers.items())
    assert main(["convert", str(pickle), "-o", str(target)]) == 2, "what exists is not replaced"


def test_a_pickle_of_something_else_leaves_nothing(tmp_path, capsys):
    pickle = tmp_path / "other.pt"
    torch.save({"a": torch.ones(2)}, pickle)
    assert main(["convert", str(pickle)]) == 2
    assert "not hold a supported latent upscaler" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.pt"]


def test_the_default_says_what_ran_and_the_weights_of_learned_methods_are_named(
    picture_file, sd1_folder, own, tmp_path
):
    paths = [tmp_path / f"{name}.png" for name in ("automatic", "learned", "own", "plain")]
    asked = [[], ["--method", "learned"], ["--learned", own], ["--method", "pixels"]]
    for path, more in zip(paths, asked, strict=True):
        assert made(picture_file, "-o", path, "--model", sd1_folder, *more) == 0
    written = [parameters_of(path) for path in paths]
    assert written[0] == written[1]
    methods = [one["Latent upscale method"] for one in written]
    assert methods == ["learned", "learned", f"learned-latent: {own.stem}", "pixels"]
    weights = [one.get("Latent upscale weights", "") for one in written[1:]]
    assert weights == [weights_hash("restore", "sd1"), file_hash(own), ""]
    with Image.open(paths[0]) as first, Image.open(paths[1]) as second:
        assert (np.asarray(first) == np.asarray(second)).all()
