"""What the command line says about where it serves."""

from __future__ import annotations

import io
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Self

import pytest

from trio_stream import Config, Server
from trio_stream._announce import announce, find_addresses, qr_code
from trio_stream._routing import Router


class Probe:
    """A socket of a machine that has one address in the network, or none."""

    address = ""
    asked: ClassVar[list[str]] = []

    def __init__(self, family: int, kind: int) -> None:
        assert kind == socket.SOCK_DGRAM  # which does not send anything to connect

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def connect(self, address: tuple[str, int]) -> None:
        self.asked.append(address[0])
        if not self.address:
            raise OSError("no way there")

    def getsockname(self) -> tuple[str, int]:
        return self.address, 5

    # `send` and all else are missing.


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> type[Probe]:
    monkeypatch.setattr("trio_stream._announce.socket.socket", Probe)
    monkeypatch.setattr(Probe, "address", "")
    monkeypatch.setattr(Probe, "asked", [])
    return Probe


def server_on(*addresses: object) -> Server:
    server = Server(Router(), Config())
    server._addresses = list(addresses)
    return server


def test_an_address_is_where_it_is_found(probe: type[Probe]) -> None:
    for host in ("127.0.0.1", "::1", "192.0.2.7", "fe80::1%eth0"):
        assert find_addresses(host, 80) == [(host, 80)]
    assert probe.asked == []


@pytest.mark.parametrize(
    ("host", "local", "public", "somebody"),
    [
        ("0.0.0.0", "127.0.0.1", "192.168.0.7", "192.0.2.1"),
        ("::", "::1", "fd00::7", "2001:db8::1"),
    ],
)
def test_all_addresses_are_one_here_and_one_in_the_network(
    probe: type[Probe], host: str, local: str, public: str, somebody: str
) -> None:
    assert find_addresses(host, 80) == [(local, 80)]
    probe.address = public
    assert find_addresses(host, 80) == [(local, 80), (public, 80)]
    assert probe.asked == [somebody] * 2


def test_this_machine_can_be_asked() -> None:
    assert find_addresses("0.0.0.0", 80)[0] == ("127.0.0.1", 80)
    assert find_addresses("::", 80)[0] == ("::1", 80)


def test_it_prints_urls(probe: type[Probe], capsys: pytest.CaptureFixture[str]) -> None:
    probe.address = "192.168.0.7"
    announce(server_on(("0.0.0.0", 8000), ("::1", 8000, 0, 0)))
    output, errors = capsys.readouterr()
    assert output.splitlines() == [
        "Serving on http://127.0.0.1:8000",
        "Serving on http://192.168.0.7:8000",
        "Serving on http://[::1]:8000",
    ]
    assert errors == ""


def test_it_prints_paths(capsys: pytest.CaptureFixture[str]) -> None:
    announce(server_on("/run/http.sock", b"\0name", ("127.0.0.1", 8000)), shared="mine")
    output, errors = capsys.readouterr()
    assert output.splitlines() == [
        "Serving on unix:/run/http.sock",
        "Serving on unix:@name",
        "Serving on http://127.0.0.1:8000",
    ]
    assert errors == ""


@pytest.mark.parametrize(
    ("address", "url"),
    [
        (("127.0.0.1", 8000), "http://127.0.0.1:8000/a.wav"),
        (("::1", 80, 0, 0), "http://[::1]:80/a.wav"),
        ("/run/my socket", "--unix-socket '/run/my socket' http://localhost/a.wav"),
    ],
)
def test_it_says_how_to_try_the_demo(
    address: object, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    announce(server_on(address), song="a.wav")
    assert capsys.readouterr().out.splitlines()[:2] == [
        "The demo: open the address below in a browser, or try",
        f"  curl --limit-rate 500k --output a.wav {url}",
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "fe80::1%eth0"])
@pytest.mark.usefixtures("probe")
def test_it_warns_of_what_others_can_read(caplog: pytest.LogCaptureFixture, host: str) -> None:
    announce(server_on(("127.0.0.1", 8000), (host, 8000)), shared="my \x1b[2J")
    assert caplog.messages == [
        "whoever can reach this machine can read 'my \\x1b[2J'; there is no password"
    ]
    caplog.clear()
    announce(server_on((host, 8000)))  # an app, which knows what it does
    announce(server_on(("127.0.0.1", 8000), ("::1", 8000)), shared="mine")
    assert caplog.messages == []


BLOCKS = set(" \N{FULL BLOCK}\N{UPPER HALF BLOCK}\N{LOWER HALF BLOCK}")


def test_the_qr_code_is_that_of_the_address_for_others(
    probe: type[Probe], capsys: pytest.CaptureFixture[str]
) -> None:
    probe.address = "192.168.0.7"
    announce(server_on(("0.0.0.0", 8000)), qr=True)
    output = capsys.readouterr().out
    code = qr_code("http://192.168.0.7:8000")
    assert output.endswith(f"Serving on http://192.168.0.7:8000\n{code}\n")
    assert set(code) == BLOCKS | {"\n"}
    assert len({len(line) for line in code.splitlines()}) == 1


def test_a_qr_code_for_this_machine_only_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    announce(server_on(("127.0.0.1", 8000)), qr=True)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "Only this machine can use it. --host 0.0.0.0 lets others in."


def test_a_qr_code_is_of_ascii_if_need_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    code = qr_code("http://127.0.0.1:8000")
    assert code.startswith("\x1b[7m")
    assert code.isascii()


def test_nothing_is_said_without_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it if descriptor 1 is closed
    announce(server_on(("127.0.0.1", 8000)), qr=True)


def test_a_stdout_that_takes_nothing_is_only_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 (closing it fails)
    monkeypatch.setattr(sys, "stdout", full)
    announce(server_on(("127.0.0.1", 8000)))
    announce(server_on(("127.0.0.1", 8000)))
    assert caplog.messages == ["nothing can be told on stdout: No space left on device"]
    with suppress(OSError):
        full.close()
