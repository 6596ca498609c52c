"""Several pictures over Ray: the same files, whatever happens to the workers. Ray starts in seconds: few tests."""

import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from lib_latent_upscale.standalone.commands import cluster
from lib_latent_upscale.standalone.commands.cli import main

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["a.png", "b.png", "c.png", "d.png"]


@pytest.fixture
def with_ray(monkeypatch):
    """Local workers find this code, and compute as this process does: with one thread."""
    ray = pytest.importorskip("ray")
    if sys.platform == "win32":
        pytest.skip("Ray's workers are tested where most clusters are")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    yield ray
    assert not ray.is_initialized()


@pytest.fixture
def album(tmp_path, monkeypatch):
    """The current folder has one named album: four pictures and one that is damaged."""
    (tmp_path / "album").mkdir()
    for name in NAMES:
        Image.effect_noise((48, 32), 50).convert("RGB").save(tmp_path / "album" / name)
    (tmp_path / "album" / "e.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "album"


def command(sd1_folder, *more, steps=1):
    fixed = ["--model", os.path.relpath(sd1_folder), "--scale", "1", "--steps", str(steps)]
    return ["upscale", "album", *fixed, *more]


def files(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_workers_make_the_same_files_even_where_one_dies(album, sd1_folder, with_ray, monkeypatch, capfd):
    """The killed worker's picture is tried again; one that kills every worker fails alone. Then all is finished."""
    deaths, deadly = album.parent / "deaths", "c.png"

    class Mortal:  # of a function, so that it is sent as it is
        def __init__(self, *given):
            self.worker = importlib.import_module("lib_latent_upscale.standalone.commands.cluster").Worker(*given)

        def load(self):
            self.worker.load()

        def upscale(self, jobs, pictures):
            first = not deaths.exists()
            if first or jobs[0].source.name == deadly:
                with deaths.open("a") as file:
                    file.write(f"{jobs[0].source.name}\n")
                os._exit(1)
            return self.worker.upscale(jobs, pictures)

    assert subprocess_alone(sd1_folder) == 1
    alone = files("alone")
    monkeypatch.setattr(cluster, "Worker", Mortal)
    assert main(command(sd1_folder, "-o", "together", "--ray", "--ray-workers", "2")) == 1
    shown = capfd.readouterr()
    assert files("together") == {name: alone[name] for name in NAMES if name != deadly}
    assert "5 pictures: 3 done, 2 failed." in shown.err
    assert "c.png: its worker ended 3 times" in shown.err
    assert "e.png: not a picture" in shown.err
    assert "3/5" in shown.err  # the progress bar
    assert deaths.read_text().count(deadly) >= 3


def subprocess_alone(sd1_folder):
    """Without Ray, in a process of one thread, as a worker is."""
    done = subprocess.run(
        [sys.executable, "-m", "lib_latent_upscale", *command(sd1_folder, "-o", "alone", "--quiet")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
        capture_output=True,
    )
    return done.returncode


@pytest.mark.usefixtures("with_ray", "ctrl_c")
def test_an_interrupt_leaves_whole_files_and_what_is_missing_is_made_later(album, sd1_folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "lib_latent_upscale", *command(sd1_folder, "-o", "o", "--ray", steps=60)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline()  # the first result
        process.send_signal(signal.SIGINT)
        _, shown = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in shown
    made = files("o")
    assert 1 <= len(made) < len(NAMES)
    for name in made:
        Image.open(Path("o", name)).load()
    assert main(command(sd1_folder, "-o", "o", "--quiet", steps=60)) == 1
    assert sorted(files("o")) == NAMES
    assert {name: content for name, content in files("o").items() if name in made} == made


@pytest.fixture
def silent_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--ray", "127.0.0.1:{port}"], "nobody answers there"),
        (["--ray", "ray://127.0.0.1:{port}"], "nobody answers there"),
        (["--ray", "photos/"], "no address; give HOST:PORT"),
        (["--ray-workers", "2"], "only with --ray"),
        (["--ray", "--ray-workers", "0"], "1 or more"),
    ],
)
def test_what_cannot_work_is_said_before_any_work(album, sd1_folder, capsys, silent_port, monkeypatch, more, said):
    monkeypatch.setitem(sys.modules, "ray", sys)  # asked for nothing
    before = files(album)
    assert main(command(sd1_folder, "-o", "o", *(part.format(port=silent_port) for part in more))) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert files(album) == before
    assert not Path("o").exists()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "nobody answers there (timed out)"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers there is not Ray"),
    ],
)
def test_a_port_of_something_else_is_said_at_once(album, sd1_folder, capsys, monkeypatch, answer, said):
    """A listener that says nothing, and a web server: Ray itself waits for minutes."""
    monkeypatch.setitem(sys.modules, "ray", sys)  # asked for nothing
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        stopped = threading.Event()

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.sendall(answer)
                stopped.wait(30)

        served = pool.submit(serve)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        try:
            assert main(command(sd1_folder, "-o", "o", "--ray", address)) == 2
        finally:
            stopped.set()
        served.result()
    assert said in capsys.readouterr().err
    assert not Path("o").exists()


@pytest.mark.usefixtures("with_ray")
def test_a_model_that_workers_cannot_load_is_one_sentence(album, sd1_folder, capfd, tmp_path):
    """Also more workers than there is room for; both before the folder for results is made."""
    arguments = command(sd1_folder, "-o", "o", "--ray", "--quiet")
    for more, said in ((["--dtype", "int4"], "Unknown dtype 'int4'"), (["--ray-workers", "999"], "has room for")):
        assert main([*arguments, *more]) == 2
        assert said in capfd.readouterr().err
        assert not Path("o").exists()


def test_without_ray_the_command_that_mends_it_is_named(album, sd1_folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with suppress(SystemExit):
        assert main(command(sd1_folder, "--ray")) == 1
    shown = capsys.readouterr().err
    assert "the package ray is missing" in shown
    assert 'pip install "latent-upscale[ray]"' in shown
