"""What the workers of one server tell each other of what they count, through a directory.

Each worker listens on a Unix socket there, and answers a connection with its statistics. It keeps
what it has told in a file beside it, for when it is busy or killed, and when it ends well it leaves
a file instead with all that it has counted: so no sum over workers falls.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import stat
import sys
import time
from collections import Counter
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import TYPE_CHECKING

import trio

from ._accept import accept_connections
from ._background import open_background
from ._stats import AbortReason, Stats

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

logger = logging.getLogger("trio_stream")

DIRECTORY_VARIABLE = "TRIO_STREAM_STATS_DIRECTORY"

_TIMEOUT = 1.0  # for an answer, in seconds

_TOLD = ".told"  # the end of the name of what a worker has told

_PREFIX = "trio-stream-"
_DIRECTORY = re.compile(rf"{_PREFIX}[a-z0-9_]{{8}}")  # what `TemporaryDirectory` makes of it
# The id of a process, and a few random digits.
_LEFT = re.compile(rf"\.?[0-9]+\.[0-9a-f]{{8}}({re.escape(_TOLD)})?")
_NEW = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """The statistics of one process.

    Attributes:
      worker: The id of the process.
      stats: What its server has counted.
      cpu_seconds: User and system time so far.
      memory: Resident, in bytes; 0 if that is not known.
      is_over: It has ended, and counts on in sums only.
    """

    worker: int
    stats: Stats
    cpu_seconds: float
    memory: int
    is_over: bool = False

    @classmethod
    def of_this_process(cls, stats: Stats) -> WorkerStats:
        """As they are now."""
        return cls(os.getpid(), stats, time.process_time(), resident_memory())

    def as_json(self, *, is_over: bool = False) -> bytes:
        """As bytes that `from_json` reads."""
        stats = {
            **{field.name: getattr(self.stats, field.name) for field in fields(Stats)},
            "aborts": {reason.name: count for reason, count in self.stats.aborts.items()},
        }
        value = {
            "worker": self.worker,
            "stats": stats,
            "cpu_seconds": self.cpu_seconds,
            "memory": self.memory,
            "is_over": is_over,
        }
        return json.dumps(value).encode("ascii")

    @classmethod
    def from_json(cls, data: bytes) -> WorkerStats:
        """What `as_json` has made.

        Raises:
          ValueError: It was cut off.
        """
        value = json.loads(data)
        counts = value.pop("stats")
        responses = Counter({int(code): n for code, n in counts.pop("responses").items()})
        aborts = Counter({AbortReason[name]: n for name, n in counts.pop("aborts").items()})
        return cls(stats=Stats(responses=responses, aborts=aborts, **counts), **value)


def resident_memory() -> int:
    """The resident memory of this process in bytes; 0 if Linux does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:  # it is another system, or there are too many open files
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def open_directory() -> Iterator[dict[str, str]]:
    """A directory for the workers of one server, for the length of the block.

    Those that killed servers of this user have left are removed. A lock on each tells whether its
    server lives, and the kernel takes it back when that dies. What was made a moment ago may have
    no lock yet.

    Yields:
      What the environment of a process must have, which this one starts, to be such a worker. If
      there can be no directory, that is logged, and it is nothing.
    """
    variables: dict[str, str] = {}
    with ExitStack() as stack:
        try:
            for path in Path(gettempdir()).glob(f"{_PREFIX}*"):
                if _age(path) > _NEW:
                    with suppress(OSError), _locked(path):  # it lives, is not ours, or has gone
                        _remove(path)
            directory = stack.enter_context(TemporaryDirectory(prefix=_PREFIX))
            variables[DIRECTORY_VARIABLE] = f"{os.getpid()}:{directory}"
            with suppress(OSError):  # a file system without locks: nobody can lock it to remove it
                stack.enter_context(_locked(Path(directory)))
        except OSError as exc:
            logger.warning("the metrics of each worker will be its own (TMPDIR can help): %s", exc)
        yield variables


def _directory() -> Path | None:
    """Where this process meets the other workers; `None` if it is none.

    Whoever is started by a worker inherits the variable, and is none.
    """
    parent, _, directory = os.environ.get(DIRECTORY_VARIABLE, "").partition(":")
    return Path(directory) if parent == str(os.getppid()) else None


def _remove(directory: Path) -> None:
    """Remove a directory of ours, in which there is what workers leave, and nothing else."""
    left = list(directory.iterdir())
    if _DIRECTORY.fullmatch(directory.name) and all(_LEFT.fullmatch(path.name) for path in left):
        for path in left:
            path.unlink()
        directory.rmdir()


def _age(path: Path) -> float:
    """In seconds, of a directory of this user; 0 of anything else."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return time.time() - status.st_mtime if is_ours else 0


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock a directory for the length of the block.

    Raises:
      OSError: It is locked, or there is none.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


@asynccontextmanager
async def told_to_workers(stats: Stats) -> AsyncIterator[None]:
    """Tell the other workers `stats`, for the length of the block, if there is a directory for it.

    If there can be no socket in it, that is logged, and nobody is told: the sums over workers are
    not worth that one of them does not serve.
    """
    directory = _directory()
    if directory is None:
        yield
        return

    # One process may have several servers, and its id be used again.
    path = directory / f"{os.getpid()}.{secrets.token_hex(4)}"
    one_at_a_time = trio.Lock()

    async def answer(stream: trio.SocketStream, _: object) -> None:
        async with stream:
            async with one_at_a_time:
                told = WorkerStats.of_this_process(stats).as_json()
                await trio.to_thread.run_sync(_keep, _told_file(path), told)
            # It has not waited for the answer; or there are too many open files.
            with suppress(trio.BrokenResourceError, OSError):
                await stream.send_all(told)

    async def listen() -> None:
        async with trio.open_nursery() as nursery:
            room = trio.CapacityLimiter(inf)
            await accept_connections(trio.SocketListener(listener), answer, nursery, room)

    listener = trio.socket.socket(trio.socket.AF_UNIX)
    with listener:
        if not await _listens(listener, path):
            yield
            return
        try:
            async with open_background() as start_soon:
                start_soon(listen)
                yield
        finally:
            _keep(path, WorkerStats.of_this_process(stats).as_json(is_over=True))


def _told_file(path: Path) -> Path:
    return path.with_name(f"{path.name}{_TOLD}")


def _keep(path: Path, data: bytes) -> None:
    """Write a file in one step, so that nobody misses it, or what it replaces, or reads a part."""
    new = path.with_name(f".{path.name}")
    with suppress(OSError):  # the directory has gone, the disk is full, or it is not for sockets
        new.write_bytes(data)
        new.replace(path)


async def _listens(listener: trio.socket.SocketType, path: Path) -> bool:
    try:
        await listener.bind(str(path))
        listener.listen()
    except OSError as exc:  # the directory has gone, or its name is too long for a socket
        logger.warning("the metrics of other workers will lack this one: %s: %s", path, exc)
        return False
    return True


async def all_workers(stats: Stats) -> list[WorkerStats] | None:
    """The statistics of all workers that there are, and of those that have ended.

    Of one that does not answer within a second, or was killed, they are those that it told last.
    `None` if others can't be asked, as there are too many open files; that is logged.

    Args:
      stats: What the server of this worker has counted.
    """
    workers: list[WorkerStats] = []
    if directory := _directory():
        try:
            workers = await _ask_all(directory)
        except OSError as exc:
            logger.warning("the metrics of other workers can't be had: %s", exc)
            return None
    if all(worker.worker != os.getpid() or worker.is_over for worker in workers):
        workers.append(WorkerStats.of_this_process(stats))  # it could not tell the others
    return workers


async def _ask_all(directory: Path) -> list[WorkerStats]:
    """As `all_workers`.

    Raises:
      OSError: One could not be asked.
    """
    failures: list[OSError] = []

    async def ask(path: Path) -> None:
        try:
            worker = await _ask(path)
        except OSError as exc:
            failures.append(exc)
        else:
            workers.extend([worker] if worker else [])

    sockets, workers = await trio.to_thread.run_sync(_look_into, directory)
    async with trio.open_nursery() as nursery:
        for path in sockets:
            nursery.start_soon(ask, path)
    if failures:
        raise failures[0]
    return workers


def _look_into(directory: Path) -> tuple[list[Path], list[WorkerStats]]:
    """The sockets of all workers, and what those that have ended have left."""
    sockets: list[Path] = []
    ended: list[WorkerStats] = []
    try:
        paths = sorted(directory.iterdir())
    except FileNotFoundError:  # it was removed, and what was in it is lost
        paths = []
    for path in paths:
        if path.is_socket():
            sockets.append(path)
        elif path.suffix != _TOLD and not path.name.startswith("."):
            ended.append(WorkerStats.from_json(path.read_bytes()))
    return sockets, ended


async def _ask(path: Path) -> WorkerStats | None:
    """The statistics of one worker; `None` if it was killed, and had never told any.

    Raises:
      OSError: It can't be asked, for want of descriptors.
    """
    is_over = False
    answer = bytearray()
    with trio.move_on_after(_TIMEOUT):
        try:
            async with await trio.open_unix_socket(path) as stream:
                while data := await stream.receive_some():
                    answer += data
            return WorkerStats.from_json(bytes(answer))
        except ConnectionRefusedError:
            is_over = True
        except (FileNotFoundError, trio.BrokenResourceError, ValueError):
            pass  # it has ended just now, or was killed
    worker = await trio.to_thread.run_sync(_read, path)
    return worker and replace(worker, is_over=is_over or worker.is_over)


def _read(path: Path) -> WorkerStats | None:
    """What a worker has left at its end, or else what it told last, if anything."""
    for file in (path, _told_file(path)):
        if file.is_file():
            return WorkerStats.from_json(file.read_bytes())
    return None
