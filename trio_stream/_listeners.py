"""Where a server listens: on TCP, on a Unix socket, and on sockets that were opened for it."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ._addresses import is_local, socket_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from ._file import StrPath

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8000

# The owner and the group, so that a proxy of the same group can connect, and not just anybody.
DEFAULT_UNIX_MODE = 0o660

# Within a machine nothing is congested, and BBR, which paces what it sends, sets a timer for nearly
# every segment. Without that, a file for one client takes half the CPU and a third of the time,
# and chunks of 1 MiB a third less. Every Linux has Reno, and lets anybody choose it: tcp(7).
_BBR, _RENO = b"bbr", b"reno"

# A client whose machine has gone without a word is noticed while nothing is sent to it, too: after
# two minutes (RFC 9293 section 3.8.4; tcp(7)). Linux would first ask after two hours.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

# The first that systemd passes: sd_listen_fds(3).
_FIRST_SYSTEMD_FD = 3

_HOST_AND_PORT = re.compile(r"(?:\[(.+)\]|([^:\[\]]+))(?::([0-9]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """Where to listen. With `unix` or `fds`, there only, and not on `host`.

    Attributes:
      host: Names or addresses, each of which may have its own port: `"127.0.0.1:8080"`,
        `"[::1]:8080"`. `None` for all interfaces, of IPv4 and IPv6.
      port: That of each host without one; 0 for a free one.
      unix: The path of a Unix socket, which is removed at the end.
      unix_mode: Its permissions.
      fds: Descriptors of listening sockets, of TCP or Unix. They are closed at the end.
    """

    host: str | Sequence[str] | None = DEFAULT_HOST
    port: int = DEFAULT_PORT
    unix: StrPath | None = None
    unix_mode: int = DEFAULT_UNIX_MODE
    fds: Sequence[int] = ()


@asynccontextmanager
async def open_listeners(listen: ListenOptions) -> AsyncIterator[Sequence[trio.SocketListener]]:
    """Listen for the length of the block.

    A Unix socket is removed at its end, unless another server has put its own in the place.

    Raises:
      OSError: An address can't be bound; the message says why, and `filename` which one: a
        descriptor, the path of a Unix socket, or a host and a port.
      ValueError: There is no host or no path, a port is out of range, or there are no such
        permissions.
    """
    listeners: list[trio.SocketListener] = []
    with ExitStack() as stack:

        def add(listener: trio.SocketListener) -> None:
            stack.callback(listener.socket.close)
            listeners.append(listener)
            if listener.socket.family != socket.AF_UNIX:
                _keep_alive(listener)
                if is_local(listener.socket.getsockname()):
                    _avoid_pacing(listener)

        for fd in dict.fromkeys(listen.fds):
            with _named(fd):
                add(_take_listener(fd))
        if listen.unix is not None:
            _check_unix(listen.unix, listen.unix_mode)
            with _named(str(listen.unix)):
                add(_open_unix_listener(Path(listen.unix), listen.unix_mode, stack))
        if not listeners:
            for host, port in _hosts(listen):
                with _named((host, port)):
                    for listener in await trio.open_tcp_listeners(port, host=host):
                        add(listener)
        yield listeners


def _keep_alive(listener: trio.SocketListener) -> None:
    """Have the kernel ask the clients of all connections whether they are still there."""
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            listener.socket.setsockopt(socket.IPPROTO_TCP, option, value)


def _avoid_pacing(listener: trio.SocketListener) -> None:
    """Have no connection of this listener paced; once there is one, that can't be changed."""
    if hasattr(socket, "TCP_CONGESTION"):
        option = socket.IPPROTO_TCP, socket.TCP_CONGESTION
        with suppress(OSError):  # this system has no choice
            if listener.socket.getsockopt(*option, 16).rstrip(b"\0") == _BBR:
                listener.socket.setsockopt(*option, _RENO)


@contextmanager
def _named(where: object) -> Iterator[None]:
    """Have an error in the block tell which one of several addresses it is about."""
    try:
        yield
    except UnicodeError as exc:  # no name is like that
        raise OSError(errno.EINVAL, str(exc), where) from exc
    except OSError as exc:
        exc.filename = where
        raise


def has_systemd_fds() -> bool:
    """Whether systemd has opened sockets for this process: sd_listen_fds(3)."""
    is_ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    return is_ours and bool(re.fullmatch("[1-9][0-9]{0,8}", os.environ.get("LISTEN_FDS", "")))


def take_systemd_fds() -> list[int]:
    """The sockets that systemd has opened for this process.

    The variables that tell of them are removed from the environment: children have no such sockets.
    """
    count = int(os.environ["LISTEN_FDS"]) if has_systemd_fds() else 0
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"):
        os.environ.pop(name, None)
    return list(range(_FIRST_SYSTEMD_FD, _FIRST_SYSTEMD_FD + count))


def split_host(text: str, default_port: int) -> tuple[str, int]:
    """The host and the port in `"127.0.0.1:8080"`, `"[::1]:8080"`, `"::1"`.

    Raises:
      ValueError: The port is out of range.
    """
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None:
        return text, default_port  # an address of IPv6, or what nobody will know
    port = default_port if match[3] is None else int(match[3])
    if port > 65535:
        raise ValueError(f"{port} is not a port (0 to 65535): {text!r}")
    return match[1] or match[2], port


def describe_address(address: object, scheme: str = "http") -> str:
    """Where a client finds a server, for people: a URL, or the path of a Unix socket.

    Args:
      address: As `socket.getsockname` gives it.
      scheme: That of the URL.
    """
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    return f"unix:{socket_name(address)}"


def _check_unix(path: StrPath, mode: object) -> None:
    if not os.fspath(path):
        raise ValueError("the path of a Unix socket must not be empty")
    if not isinstance(mode, int) or not 0 <= mode <= 0o777:
        hint = f", such as 0o{mode}" if re.fullmatch("[0-7]{3}", str(mode)) else ""
        raise ValueError(f"unix_mode must be permissions up to 0o777{hint}, not {mode!r}")


def _hosts(listen: ListenOptions) -> list[tuple[str | None, int]]:
    if listen.port not in range(65536):  # as "80" is not
        raise ValueError(f"{listen.port!r} is not a port (0 to 65535)")
    if listen.host is None:
        return [(None, listen.port)]
    hosts = [listen.host] if isinstance(listen.host, str) else listen.host
    if not hosts or "" in hosts:
        raise ValueError("there is no host to listen on; None is for all interfaces")
    return [split_host(host, listen.port) for host in hosts]


def _take_listener(fd: int) -> trio.SocketListener:
    os.set_inheritable(fd, False)  # it is ours now, and not our children's
    sock = socket.socket(fileno=fd)
    try:
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    except ValueError:  # one of datagrams, or one that does not listen
        sock.close()
        raise OSError(errno.EINVAL, f"descriptor {fd} is not a listening socket") from None


def _open_unix_listener(path: Path, mode: int, stack: ExitStack) -> trio.SocketListener:
    """Listen on a Unix socket, which `stack` then removes.

    Of two servers that start at the same time on a stale socket, the later one can win.
    """
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
        # Nobody can connect yet, so the mode is right from the beginning.
        stack.callback(_remove_own, path.absolute(), _identity(path))
        path.chmod(mode)
        sock.listen(socket.SOMAXCONN)
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    except BaseException:
        sock.close()
        raise


def _remove_stale(path: Path) -> None:
    """Remove a Unix socket on which nobody listens any more.

    Raises:
      OSError: Somebody does, or something else is there.
    """
    try:
        is_socket = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not is_socket:
        raise FileExistsError(errno.EEXIST, "there is a file that is not a socket", str(path))
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a server whose backlog is full would keep us waiting
        error = probe.connect_ex(str(path))
    if error in (0, errno.EAGAIN):
        error = errno.EADDRINUSE
    if error != errno.ECONNREFUSED:
        raise OSError(error, os.strerror(error), str(path))
    path.unlink()


def _remove_own(path: Path, identity: tuple[int, ...]) -> None:
    with suppress(OSError):  # it has gone, or we may not
        if _identity(path) == identity:
            path.unlink()


def _identity(path: Path) -> tuple[int, ...]:
    """Tells a file from another one in its place, which may well have the number of the first."""
    status = path.lstat()
    return status.st_dev, status.st_ino, status.st_mtime_ns
