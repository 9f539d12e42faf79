"""Where a server listens."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.harness import connect, get, start_server, without_date
from trio_stream import App, Request, Response, Server
from trio_stream._listeners import (
    ListenOptions,
    describe_address,
    has_systemd_fds,
    open_listeners,
    split_host,
    take_systemd_fds,
)
from trio_stream._socket_transport import SocketTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@asynccontextmanager
async def serving(**where: Any) -> AsyncIterator[Server]:  # noqa: ANN401
    app = App()
    app.get("/", lambda res, _: res.end("hello"))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            yield await nursery.start(lambda **kw: app.serve(**where, **kw))
            nursery.cancel_scope.cancel()


async def ask(address: Any) -> bytes:  # noqa: ANN401
    if isinstance(address, tuple):
        stream = await trio.open_tcp_stream(address[0], address[1])
    else:
        stream = await trio.open_unix_socket(address)
    async with stream:
        await stream.send_all(get("/"))
        return without_date(bytes(await stream.receive_some()))


async def ask_all(server: Server) -> None:
    for address in server.addresses:
        assert await ask(address) == HELLO


def identity(path: Path) -> tuple[int, int]:
    return path.lstat().st_ino, path.lstat().st_mtime_ns


# TCP...


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("localhost", "localhost", 80),
        ("localhost:1", "localhost", 1),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("127.0.0.1:65535", "127.0.0.1", 65535),
        ("::1", "::1", 80),
        ("::", "::", 80),
        ("[::1]", "::1", 80),
        ("[fe80::1%eth0]:8080", "fe80::1%eth0", 8080),
        # Nobody will know these.
        ("", "", 80),
        (":1", ":1", 80),
        ("a:", "a:", 80),
        ("a:b", "a:b", 80),
        ("[a", "[a", 80),
    ],
)
def test_a_host_may_have_its_own_port(text: str, host: str, port: int) -> None:
    assert split_host(text, 80) == (host, port)


def test_a_port_has_a_limit() -> None:
    with pytest.raises(ValueError, match=r"^65536 is not a port \(0 to 65535\): 'a:65536'$"):
        split_host("a:65536", 80)
    with pytest.raises(ValueError, match=r"^65536 is not a port \(0 to 65535\): 'a'$"):
        split_host("a", 65536)


async def test_several_hosts_and_ports() -> None:
    async with serving(host=["127.0.0.1", "127.0.0.1:0", "[::1]:0"], port=0) as server:
        first, second, third = server.addresses
        assert first[0] == second[0] == "127.0.0.1"
        assert first[1] == server.port != second[1]
        assert third[0] == "::1"
        await ask_all(server)


async def test_all_interfaces_are_one_of_each_kind() -> None:
    async with serving(host=None, port=0) as server:
        assert sorted(host for host, *_ in server.addresses) == ["0.0.0.0", "::"]
        await ask_all(server)


@pytest.mark.parametrize("port", ["80", -1, 65536])
async def test_what_is_no_port_is_refused(port: Any) -> None:  # noqa: ANN401
    with pytest.raises(ValueError, match=rf"^{port!r} is not a port \(0 to 65535\)$"):
        await App().serve(port=port)


async def test_without_a_host_there_is_nothing() -> None:
    hosts: tuple[str | list[str], ...] = ([], "", ["127.0.0.1", ""])
    for host in hosts:
        with pytest.raises(ValueError, match="no host to listen on"):
            await App().serve(host=host)


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="needs Linux")
async def test_clients_are_asked_whether_they_are_still_there() -> None:
    app = App()
    found: list[int] = []

    @app.get("/")
    def look(res: Response, _: Request) -> None:
        assert isinstance(res._transport, SocketTransport)
        getsockopt = res._transport._stream.socket.getsockopt
        found.append(getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
            found.append(getsockopt(socket.IPPROTO_TCP, option))
        res.end()

    async with trio.open_nursery() as nursery:
        server = await start_server(nursery, app)
        async with await connect(server.port) as client:
            await client.send_all(get("/"))
            await client.receive_some()
        nursery.cancel_scope.cancel()
    assert found == [1, 60, 15, 4]


def congestion_control(sock: socket.socket | trio.socket.SocketType) -> str:
    value = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return value.rstrip(b"\0").decode()


@pytest.fixture
def default_paces(monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The default, as if it paced, and one that does not."""
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    with socket.socket() as sock:
        default = congestion_control(sock)
    others = set(allowed.read_text().split()) - {default}
    if not others:
        pytest.skip("there is one congestion control only")
    other = others.pop()
    monkeypatch.setattr("trio_stream._listeners._BBR", default.encode())
    monkeypatch.setattr("trio_stream._listeners._RENO", other.encode())
    return default, other


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="needs Linux")
@pytest.mark.parametrize(
    ("host", "is_local"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)]
)
async def test_nothing_is_paced_within_a_machine(
    default_paces: tuple[str, str], host: str, is_local: bool
) -> None:
    async with serving(host=host, port=0) as server:
        (listener,) = server._listeners
        assert congestion_control(listener.socket) == default_paces[is_local]
        await ask_all(server)


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="needs Linux")
async def test_inherited_sockets_are_not_paced_either(default_paces: tuple[str, str]) -> None:
    inherited = listening()
    async with serving(fds=[inherited.detach()]) as server:
        (listener,) = server._listeners
        assert congestion_control(listener.socket) == default_paces[1]


@pytest.mark.skipif(not hasattr(socket, "TCP_CONGESTION"), reason="needs Linux")
async def test_a_system_without_a_choice_paces_on(
    default_paces: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_stream._listeners._RENO", b"nothing")
    async with serving(port=0) as server:
        (listener,) = server._listeners
        assert congestion_control(listener.socket) == default_paces[0]
        await ask_all(server)


# Unix sockets...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def make_stale(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


async def test_a_unix_socket_is_there_while_it_is_served(path: Path) -> None:
    async with serving(unix=path) as server:
        assert server.addresses == [str(path)]
        assert stat.S_IMODE(path.lstat().st_mode) == 0o660
        assert stat.S_ISSOCK(path.lstat().st_mode)
        await ask_all(server)
        with pytest.raises(LookupError, match="has no port"):
            _ = server.port
    assert not path.exists()


@pytest.mark.parametrize("mode", [660, "660", -1])
async def test_a_mode_is_no_decimal_number(path: Path, mode: int) -> None:
    hint = "" if mode == -1 else ", such as 0o660"
    message = f"^unix_mode must be permissions up to 0o777{hint}, not {mode!r}$"
    with pytest.raises(ValueError, match=message):
        await App().serve(unix=path, unix_mode=mode)


async def test_a_path_is_not_empty() -> None:
    with pytest.raises(ValueError, match="the path of a Unix socket must not be empty"):
        await App().serve(unix="")


@pytest.mark.parametrize("mode", [0o600, 0o666, 0o777])
async def test_its_mode_is_that_which_was_asked_for(path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        async with serving(unix=str(path), unix_mode=mode):
            assert stat.S_IMODE(path.lstat().st_mode) == mode
    finally:
        os.umask(before)


async def test_a_relative_path_is_removed_from_anywhere(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    async with serving(unix="socket") as server:
        assert server.addresses == ["socket"]
        monkeypatch.chdir("/")
    assert not path.exists()


async def test_a_stale_socket_is_replaced(path: Path) -> None:
    make_stale(path)
    async with serving(unix=path) as server:
        await ask_all(server)
    assert not path.exists()


async def test_a_socket_that_lives_is_an_error(path: Path) -> None:
    async with serving(unix=path) as server:
        before = identity(path)
        with pytest.raises(OSError, match=r"in use.*socket"):
            await App().serve(unix=path)
        assert identity(path) == before
        await ask_all(server)


async def test_a_socket_whose_server_is_busy_lives(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as client:
        busy.bind(str(path))
        busy.listen(0)
        client.connect(str(path))  # which is all that may wait
        with pytest.raises(OSError, match="in use"):
            await App().serve(unix=path)
    assert path.exists()


async def test_a_socket_of_another_kind_is_an_error(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(OSError, match="rong type for socket"):
            await App().serve(unix=path)
    assert path.exists()


async def test_a_file_that_is_no_socket_is_an_error(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(FileExistsError, match=r"that is not a socket.*socket"):
        await App().serve(unix=path)
    assert path.read_text() == "precious"
    link = path.with_name("link")
    link.symlink_to(path)
    with pytest.raises(FileExistsError):
        await App().serve(unix=link)
    assert link.is_symlink()


async def test_a_directory_that_is_not_there_is_an_error(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await App().serve(unix=path / "socket")


async def test_a_mode_that_cannot_be_set_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "not today")

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(PermissionError):
        await App().serve(unix=path)
    assert not path.exists()


async def test_the_socket_of_a_successor_stays(path: Path) -> None:
    async with serving(unix=path):
        path.unlink()
        make_stale(path)
    assert path.exists()


async def test_a_socket_that_was_removed_is_no_error(path: Path) -> None:
    async with serving(unix=path):
        path.unlink()
    assert not path.exists()


# Descriptors...


def listening(path: Path | None = None) -> socket.socket:
    if path is None:
        return socket.create_server(("127.0.0.1", 0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


async def test_inherited_sockets_are_served_and_closed(path: Path) -> None:
    tcp, unix = listening(), listening(path)
    addresses = [tcp.getsockname(), str(path)]
    fds = [tcp.detach(), unix.detach()]
    for fd in fds:
        os.set_inheritable(fd, True)
    async with serving(fds=[*fds, fds[0]]) as server:
        assert server.addresses == addresses
        assert server.port == addresses[0][1]
        assert not any(map(os.get_inheritable, fds))
        assert not any(map(os.get_blocking, fds))
        await ask_all(server)
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    assert path.exists()  # it is somebody else's


async def test_two_servers_share_a_socket() -> None:
    with listening() as listener:
        address = listener.getsockname()
        async with serving(fds=[os.dup(listener.fileno())]) as first:
            async with serving(fds=[os.dup(listener.fileno())]):
                assert await ask(address) == HELLO
            assert await ask(address) == HELLO
            assert first.addresses == [address]


async def test_inherited_sockets_and_a_unix_socket(path: Path) -> None:
    async with serving(fds=[listening().detach()], unix=path) as server:
        assert server.addresses[1] == str(path)
        await ask_all(server)


async def test_one_that_fails_leaves_none_open(path: Path) -> None:
    fd = listening().detach()
    with pytest.raises(FileNotFoundError):
        await App().serve(fds=[fd], unix=path / "socket")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


async def test_what_is_no_listening_socket_is_an_error(tmp_path: Path) -> None:
    for sock in (
        socket.socket(),
        socket.socket(type=socket.SOCK_DGRAM),
        socket.socket(socket.AF_UNIX),
    ):
        fd = sock.detach()
        with pytest.raises(OSError, match=f"descriptor {fd} is not a listening socket"):
            await App().serve(fds=[fd])
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="non-socket"):
        await App().serve(fds=[file.fileno()])
    for fd in (-1, 9999):
        with pytest.raises(OSError, match="Bad file descriptor"):
            await App().serve(fds=[fd])


@pytest.mark.parametrize(
    ("pid", "count", "fds"),
    [
        (0, "2", [3, 4]),
        (0, "0", []),
        (1, "2", []),
        (0, "many", []),
        (0, "-1", []),
        (0, None, []),
        (None, "2", []),
        (None, None, []),
    ],
)
def test_what_systemd_passes(
    pid: int | None, count: str | None, fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "LISTEN_PID": None if pid is None else str(os.getpid() + pid),
        "LISTEN_FDS": count,
        "LISTEN_FDNAMES": "http:https",
    }
    for name, value in variables.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    assert has_systemd_fds() is bool(fds)
    assert take_systemd_fds() == fds
    assert not variables.keys() & os.environ.keys()
    assert take_systemd_fds() == []


async def test_closed_listeners_are_closed_once(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        async with open_listeners(ListenOptions(port=0)) as (listener,):
            fd = listener.socket.fileno()
            await listener.aclose()
            os.dup2(file.fileno(), fd)  # the number is that of another file now
        assert os.path.sameopenfile(fd, file.fileno())
        os.close(fd)


# For people...


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 80), "http://127.0.0.1:80"),
        (("::1", 80, 0, 0), "http://[::1]:80"),
        ("/run/http.sock", "unix:/run/http.sock"),
        (b"\0name", "unix:@name"),
    ],
)
def test_an_address_for_people(address: object, text: str) -> None:
    assert describe_address(address) == text
    assert describe_address(address, "https") == text.replace("http:", "https:")


@pytest.mark.parametrize("name", [b"\0name-of-%d", b"\0\xff-%d"])
async def test_an_abstract_socket_is_served(name: bytes) -> None:
    name %= os.getpid()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)
    listener.listen()
    async with serving(fds=[listener.detach()]) as server:
        assert server.addresses == [name]
        describe_address(name).encode("utf-8", "surrogateescape")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(name)
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            await stream.send_all(get("/"))
            assert without_date(bytes(await stream.receive_some())) == HELLO
