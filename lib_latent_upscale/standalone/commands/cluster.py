"""Pictures spread over the workers of a Ray cluster.

Ray finds room for the workers, hands them the pictures, and starts those anew that die. Pictures are read and results
are written here, so that the machines need not share a folder, and a worker that is stopped leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lib_latent_upscale.errors import InputError, first_line
from lib_latent_upscale.standalone.commands.cli import quiet_libraries
from lib_latent_upscale.standalone.commands.common import checked_models, notice
from lib_latent_upscale.standalone.commands.flags import attribute_of
from lib_latent_upscale.standalone.commands.passes import WITH_MODEL
from lib_latent_upscale.standalone.commands.upscaler import Job, Outcome, Upscaler, read
from lib_latent_upscale.standalone.files.folders import not_written
from lib_latent_upscale.standalone.files.images import Picture
from lib_latent_upscale.standalone.files.settings import FileSettings
from lib_latent_upscale.writing import write_whole

__all__ = ["Cluster", "Worker", "check_cluster", "cluster"]

_LOCAL, _RUNNING = "local", "auto"
_ADDRESS = re.compile(r"(?:ray://)?([\w.-]+|\[[\da-f:]+\]):(\d{1,5})", re.IGNORECASE)
_PATIENCE = 5.0
"""Seconds that a cluster has to answer: Ray itself tries for three minutes."""
_TRIES = 3
"""How often a picture may lose its worker: one that kills each of them must not do so for ever."""


def check_cluster(arguments: argparse.Namespace) -> None:
    """Find what cannot work before any work.

    Raises:
        InputError: no such address, nobody answers there, or a number of workers that is not allowed.
        ModuleNotFoundError: Ray is not installed.
    """
    if arguments.ray_workers is not None and (arguments.ray is None or arguments.ray_workers < 1):
        problem = "only with --ray." if arguments.ray is None else "allowed is 1 or more."
        raise InputError(f"--ray-workers {arguments.ray_workers}: {problem}")
    if arguments.ray is None:
        return
    import ray  # noqa: F401

    if arguments.ray not in (_LOCAL, _RUNNING):
        _check_answers(arguments.ray)


def _check_answers(address: str) -> None:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise InputError(
            f"--ray {address}: no address; give HOST:PORT of a cluster, auto for the one that runs on this machine, or "
            "nothing, with --ray behind the pictures, for this machine's own cores and GPUs."
        )
    advice = "start Ray with `ray start --head`, or leave the address out."
    try:
        with socket.create_connection((match[1].strip("[]"), int(match[2])), _PATIENCE) as connection:
            is_ray = os.environ.get("RAY_USE_TLS") == "1" or _speaks_http2(connection)
    except (OSError, OverflowError) as error:
        raise InputError(f"--ray {address}: nobody answers there ({error}); {advice}") from error
    if not is_ray:
        raise InputError(f"--ray {address}: what answers there is not Ray; {advice}")


_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins, with a frame of no settings (RFC 9113, section 3.4)."""


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether settings come back, the fourth byte of whose frame is 4: gRPC, which Ray speaks, is HTTP/2."""
    connection.sendall(_HELLO)
    return connection.recv(9)[3:4] == b"\4"


class Worker:
    """The models of a command in one process of a cluster, loaded once: also where Ray has started it anew."""

    def __init__(self, arguments: argparse.Namespace, files: FileSettings) -> None:
        self._arguments, self._files = arguments, files
        self._made: dict[Path, bytes] = {}

    @cached_property
    def _upscaler(self) -> Upscaler:
        quiet_libraries()
        return Upscaler(self._arguments, self._files, self._keep)

    def _keep(self, path: Path, content: bytes) -> Path:
        self._made[path] = content
        return path

    def load(self) -> None:
        """Load the models.

        Raises:
            InputError, GenerationError: as for `Upscaler`.
        """
        _ = self._upscaler

    def upscale(self, jobs: Sequence[Job], pictures: Sequence[Picture]) -> tuple[list[Outcome], dict[Path, bytes]]:
        """What becomes of pictures of one size, and the files of their results."""
        self._made.clear()
        return (self._upscaler.attempt(jobs, pictures) if jobs else []), dict(self._made)


class Cluster:
    """Workers, all of them ready, and what they make of pictures."""

    def __init__(self, workers: Sequence[Any], *, overwrite: bool = False) -> None:
        from ray.util import ActorPool

        self._pool, self._overwrite = ActorPool(workers), overwrite

    def __call__(self, batches: Sequence[Sequence[Job]]) -> Iterator[Outcome]:
        """Upscale pictures, in the order in which they are done; one whose worker dies again and again fails alone."""
        left = {job.source: job for batch in batches for job in batch}
        for outcome in self._outcomes(batches):
            del left[outcome.source]
            yield outcome
        for job in left.values():
            yield Outcome(job.source, job.output, f"{job.source}: its worker ended {_TRIES} times; out of memory?")

    def _outcomes(self, batches: Sequence[Sequence[Job]]) -> Iterator[Outcome]:
        from ray.exceptions import RayError, RayTaskError

        unread: list[Outcome] = []

        def handed(worker: Any, batch: Sequence[Job]) -> Any:
            good, pictures, bad = read(batch)
            unread.extend(bad)
            return worker.upscale.remote(good, pictures)

        for batch in batches:
            self._pool.submit(handed, batch)
        while self._pool.has_next():
            try:
                outcomes, results = self._pool.get_next_unordered()
            except RayTaskError as error:
                raise error.cause from error
            except RayError:  # the worker is gone, and so are those that took its place
                continue
            yield from (self._written(outcome, results.get(outcome.output)) for outcome in outcomes)
        yield from unread

    def _written(self, outcome: Outcome, content: bytes | None) -> Outcome:
        if content is None:
            return outcome
        try:
            return replace(outcome, output=write_whole(outcome.output, content, overwrite=self._overwrite))
        except OSError as error:
            return replace(outcome, error=f"{outcome.source}: {not_written(error)}")


@contextmanager
def cluster(arguments: argparse.Namespace, files: FileSettings, most: int) -> Iterator[Cluster]:
    """A cluster that was reached or started, with `most` workers or fewer: one for each GPU, else for each core.

    Raises:
        InputError: as for `Upscaler`; or Ray cannot be used, or there is no room for so many workers.
    """
    import ray

    checked_models(arguments)
    _start(arguments.ray)
    try:
        needed, places = _places(arguments)
        asked = arguments.ray_workers or places
        if asked > places:
            raise InputError(f"--ray-workers {asked}: the cluster has room for {places}, each with {needed}.")
        kind = ray.remote(Worker).options(max_restarts=-1, max_task_retries=_TRIES - 1, **_NEEDS[needed])
        with notice(f"Loading the model on {min(asked, most)} workers ...", quiet=arguments.quiet):
            workers = [kind.remote(_sent(arguments), files) for _ in range(min(asked, most))]
            _ready(workers)
        yield Cluster(workers, overwrite=arguments.overwrite)
    finally:
        ray.shutdown()


_NEEDS = {"a GPU": {"num_cpus": 1, "num_gpus": 1}, "a core": {"num_cpus": 1}}


def _start(address: str) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    at_end = signal.getsignal(signal.SIGTERM)  # which Ray replaces
    try:
        ray.init(address, logging_level="ERROR", **({"include_dashboard": False} if address == _LOCAL else {}))
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"--ray {address}: Ray cannot be used ({first_line(error)}).") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, at_end)


def _places(arguments: argparse.Namespace) -> tuple[str, int]:
    """What a worker needs, a key of `_NEEDS`, and how many of that the cluster has."""
    import ray

    there = ray.cluster_resources()
    gpus = 0 if (arguments.device or "").startswith("cpu") else int(there.get("GPU", 0))
    return ("a GPU", gpus) if gpus else ("a core", int(there.get("CPU", 0)))


def _ready(workers: Sequence[Any]) -> None:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        ray.get([worker.load.remote() for worker in workers])
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise InputError(f"A worker ended while it loaded the model ({first_line(error)}); try fewer.") from error


def _sent(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments for workers, who are in another folder and whose bars nobody sees."""
    given = vars(arguments) | {"quiet": True}
    for name in ("model", "learned", *(attribute_of(kind.MODEL_FLAG) for kind in WITH_MODEL)):
        if given[name] is not None and Path(given[name]).exists():
            given[name] = type(given[name])(Path(given[name]).absolute())
    return argparse.Namespace(**given)
