"""Who sent a request, as proxies tell: RFC 7239 and what there was before it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from trio_stream import App, Config, Request, Response
from trio_stream._addresses import is_trusted, make_address
from trio_stream._forwarded import Origin, find_origin
from trio_stream.testing import open_client

if TYPE_CHECKING:
    from collections.abc import Iterable

    import trio.testing

PROXIES = ("192.0.2.0/24", "2001:db8:ffff::/48", "unix")
PEER = Origin(("192.0.2.1", 5000), "http")
CLIENT = "198.51.100.7"

F, XF, XP = "Forwarded", "X-Forwarded-For", "X-Forwarded-Proto"


def find(
    fields: Iterable[tuple[str, str]],
    peer: Origin = PEER,
    proxies: tuple[str, ...] = PROXIES,
) -> Origin:
    return find_origin(CIMultiDictProxy(CIMultiDict(fields)), peer, proxies)


def stays(client: object = PEER.client, scheme: str = PEER.scheme) -> tuple[object, str]:
    return client, scheme


# One field...


@pytest.mark.parametrize(
    ("lines", "origin"),
    [
        # The examples of RFC 7239 section 4.
        (['for="_gazonk"'], stays()),
        (['For="[2001:db8:cafe::17]:4711"'], (("2001:db8:cafe::17", 4711, 0, 0), "http")),
        (["for=198.51.100.60;proto=http;by=203.0.113.43"], (("198.51.100.60", 0), "http")),
        (["for=192.0.2.43, for=198.51.100.17"], (("198.51.100.17", 0), "http")),
        # What a value may look like.
        ([f"for={CLIENT}"], ((CLIENT, 0), "http")),
        ([f"FOR={CLIENT};PROTO=HTTPS"], ((CLIENT, 0), "https")),
        ([f'for="{CLIENT}:47011"'], ((CLIENT, 47011), "http")),
        ([f'for="{CLIENT}:0"'], ((CLIENT, 0), "http")),
        ([f'for="{CLIENT}:65535"'], ((CLIENT, 65535), "http")),
        ([f'for="{CLIENT}:_port"'], ((CLIENT, 0), "http")),
        (['for="[2001:DB8::1]"'], (("2001:db8::1", 0, 0, 0), "http")),
        (['for="[2001:db8::1]:_x"'], (("2001:db8::1", 0, 0, 0), "http")),
        ([r'for="\1\9\8.51.100.7";proto="htt\ps"'], ((CLIENT, 0), "https")),
        ([f'x="a, b;\\"c=d";for={CLIENT};y=""'], ((CLIENT, 0), "http")),
        ([f"  ,, for={CLIENT} \t,\t ,"], ((CLIENT, 0), "http")),
        ([f";for={CLIENT};;proto=https;"], ((CLIENT, 0), "https")),
        # A client that is not told.
        (["for=unknown;proto=https"], stays(scheme="https")),
        (["for=Unknown"], stays()),
        (["for=_SEVKISEK;proto=https"], stays(scheme="https")),
        (['for="_hidden:80"'], stays()),
        (["proto=https"], stays(scheme="https")),
        (["by=_me"], stays()),
        ([""], stays()),
        ([" , "], stays()),
        # The way back, from the right to the left.
        ([f"for=203.0.113.9;proto=https, for={CLIENT}"], ((CLIENT, 0), "http")),
        ([f"for={CLIENT};proto=https, for=192.0.2.2"], ((CLIENT, 0), "https")),
        ([f"for={CLIENT}, for=192.0.2.2;proto=https"], ((CLIENT, 0), "https")),
        ([f"for={CLIENT}", 'for="[2001:db8:ffff::1]"'], ((CLIENT, 0), "http")),
        (["for=192.0.2.8", "for=192.0.2.7"], (("192.0.2.8", 0), "http")),
        ([f"for={CLIENT}, for=_x, for=192.0.2.2"], (("192.0.2.2", 0), "http")),
        ([f"for={CLIENT}, proto=https, for=192.0.2.2"], (("192.0.2.2", 0), "https")),
        ([f"for=garbage, for={CLIENT}"], ((CLIENT, 0), "http")),
        (['for="garbage', f"for={CLIENT}"], ((CLIENT, 0), "http")),
        (['for="garbage', "for=192.0.2.7;proto=https"], (("192.0.2.7", 0), "https")),
        # What is malformed ends it.
        (["for"], stays()),
        (["for="], stays()),
        (["for =198.51.100.7"], stays()),
        (["for= 198.51.100.7"], stays()),
        (["for=198.51.100.7; proto=https"], stays()),
        (["for=198.51.100.7:80"], stays()),
        (["for=[2001:db8::1]"], stays()),
        (['for="2001:db8::1"'], stays()),
        (['for="[198.51.100.7]"'], stays()),
        (['for="[2001:db8::1%eth0]"'], stays()),
        (['for="[]"'], stays()),
        (["for=1.2.3"], stays()),
        (["for=1.2.3.256"], stays()),
        (["for=1.2.3.04"], stays()),
        (['for="198.51.100.7:65536"'], stays()),
        (['for="198.51.100.7:"'], stays()),
        (['for="198.51.100.7:-1"'], stays()),
        (['for="198.51.100.7 "'], stays()),
        (["for=example.org;proto=https"], stays()),
        (["for=198.51.100.7;for=198.51.100.8"], stays()),
        (["for=198.51.100.7;For=198.51.100.7"], stays()),
        (["for=198.51.100.7;proto=gopher"], stays()),
        (["for=198.51.100.7;proto="], stays()),
        (['for="198.51.100.7'], stays()),
        (['for="198.51.100.7\\"'], stays()),
        (['for="198.51.100.7"x'], stays()),
        (["for=198.51.100.7\xa0"], stays()),
        (["for=\u0661.2.3.4"], stays()),
        # A client can't open a string that the proxy's own element closes.
        ([f'for="1.1.1.1, for="[2001:db8::1]";x={CLIENT}'], stays()),
        ([f'for=1.1.1.1;x=", for={CLIENT}'], stays()),
    ],
)
def test_forwarded(lines: list[str], origin: tuple[object, str]) -> None:
    assert find([(F, line) for line in lines]) == origin


@pytest.mark.parametrize(
    ("clients", "schemes", "origin"),
    [
        ([CLIENT], [], ((CLIENT, 0), "http")),
        ([CLIENT], ["https"], ((CLIENT, 0), "https")),
        ([CLIENT], ["HTTPS"], ((CLIENT, 0), "https")),
        ([], ["https"], stays(scheme="https")),
        ([f"{CLIENT}:443"], [], ((CLIENT, 443), "http")),
        (["2001:db8::1"], [], (("2001:db8::1", 0, 0, 0), "http")),
        (["[2001:db8::1]"], [], (("2001:db8::1", 0, 0, 0), "http")),
        (["[2001:db8::1]:443"], [], (("2001:db8::1", 443, 0, 0), "http")),
        (["unknown"], ["https"], stays(scheme="https")),
        ([f"203.0.113.9, {CLIENT}"], [], ((CLIENT, 0), "http")),
        ([f"203.0.113.9, {CLIENT},192.0.2.7"], [], ((CLIENT, 0), "http")),
        (["203.0.113.9", f"{CLIENT}", "192.0.2.7"], [], ((CLIENT, 0), "http")),
        (["192.0.2.9, 192.0.2.7"], [], (("192.0.2.9", 0), "http")),
        ([f"garbage,{CLIENT}"], [], ((CLIENT, 0), "http")),
        ([f" ,{CLIENT}\t, "], [], ((CLIENT, 0), "http")),
        # As many schemes as clients, or one for all, or nobody knows.
        ([f"{CLIENT}, 192.0.2.7"], ["https, http"], ((CLIENT, 0), "https")),
        ([f"203.0.113.9, {CLIENT}"], ["https, http"], ((CLIENT, 0), "http")),
        ([f"{CLIENT}, 192.0.2.7"], ["https"], ((CLIENT, 0), "https")),
        ([f"1.1.1.1, {CLIENT}, 192.0.2.7"], ["https, https"], ((CLIENT, 0), "http")),
        ([CLIENT], ["http, https"], ((CLIENT, 0), "http")),
        ([], ["http, https"], stays(scheme="https")),
        # What is malformed ends it.
        (["garbage"], [], stays()),
        (["garbage, 192.0.2.7"], [], (("192.0.2.7", 0), "http")),
        ([f"{CLIENT}:x"], [], stays()),
        ([f"{CLIENT}:65536"], [], stays()),
        (["2001:db8::1:x"], [], stays()),
        ([CLIENT], ["gopher"], stays()),
        ([], ["gopher"], stays()),
        ([""], [""], stays()),
    ],
)
def test_x_forwarded(clients: list[str], schemes: list[str], origin: tuple[object, str]) -> None:
    fields = [(XF, line) for line in clients] + [(XP, line) for line in schemes]
    assert find(fields) == origin


# Both...


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ([(F, f"for={CLIENT}"), (XF, CLIENT)], ((CLIENT, 0), "http")),
        (
            [(F, f'for="{CLIENT}:7";proto=https'), (XF, CLIENT), (XP, "https")],
            ((CLIENT, 7), "https"),
        ),
        # The proxy has set one, and the client the other.
        ([(F, f"for={CLIENT}"), (XF, "203.0.113.9")], stays()),
        ([(F, f"for={CLIENT};proto=https"), (XF, CLIENT), (XP, "http")], stays()),
        ([(F, f"for={CLIENT}"), (XP, "https")], stays()),
        ([(F, "garbage"), (XF, CLIENT)], stays()),
        ([(F, f"for={CLIENT}"), (XF, "garbage")], stays()),
    ],
)
def test_both_must_agree(fields: list[tuple[str, str]], origin: tuple[object, str]) -> None:
    assert find(fields) == find(reversed(fields)) == origin


# Trust...


@pytest.mark.parametrize(
    ("peer", "proxies", "believed"),
    [
        (("192.0.2.1", 1), PROXIES, True),
        (("192.0.2.1", 1), (), False),
        (("203.0.113.1", 1), PROXIES, False),
        ("", PROXIES, True),
        ("", ("0.0.0.0/0",), False),
        (None, PROXIES, False),
    ],
)
def test_only_trusted_peers_are_believed(
    peer: object, proxies: tuple[str, ...], believed: bool
) -> None:
    here = Origin(peer, "https")
    for fields in ([(F, f"for={CLIENT};proto=http")], [(XF, CLIENT), (XP, "http")]):
        assert find(fields, here, proxies) == (Origin((CLIENT, 0), "http") if believed else here)


ADDRESSES = st.ip_addresses().map(str).filter(lambda host: "%" not in host)
TEXT = st.text(st.characters(codec="latin-1"), max_size=30)
LINES = st.lists(
    TEXT | st.text('for=;,"\\[]:. \t_1a', max_size=30) | ADDRESSES.map(lambda ip: f'for="[{ip}]"')
)


@given(forwarded=LINES, clients=LINES, schemes=LINES)
def test_whatever_a_client_sends_there_is_an_origin(
    forwarded: list[str], clients: list[str], schemes: list[str]
) -> None:
    fields = [(F, line) for line in forwarded]
    fields += [(XF, line) for line in clients] + [(XP, line) for line in schemes]
    client, scheme = find(fields)
    assert isinstance(client, tuple)
    assert str(ip_address(client[0])) == client[0]
    assert 0 <= client[1] <= 65535
    assert scheme in ("http", "https")


@given(
    forged=LINES,
    chain=st.lists(ADDRESSES, max_size=5),
    hops=st.lists(st.integers(0, 255), max_size=4),
    client=ADDRESSES.filter(lambda host: not is_trusted((host, 0), PROXIES)),
)
def test_nothing_that_a_client_sends_hides_it(
    forged: list[str], chain: list[str], hops: list[int], client: str
) -> None:
    """Whatever is to the left of what trusted proxies have added."""
    told = [client, *(f"192.0.2.{hop}" for hop in hops)]
    bracketed = [f"[{host}]" if ":" in host else host for host in told]
    lines = [(F, line) for line in forged] + [(F, f'for="{host}"') for host in bracketed]
    assert find(lines).client == make_address(ip_address(client), 0)
    assert find([(XF, ", ".join(chain + told))]).client == make_address(ip_address(client), 0)


# As a handler sees it...


async def test_a_request_tells_the_client(autojump_clock: trio.testing.MockClock) -> None:
    seen: list[tuple[object, str]] = []
    app = App(config=Config(trusted_proxies=("192.0.2.1",)))

    @app.get("/")
    def look(res: Response, req: Request) -> None:
        seen.append((req.client, req.scheme))
        res.end(b"")

    fields = [("Forwarded", f"for={CLIENT};proto=https")]
    async with open_client(app) as client:
        await (await client.request("GET", "/", headers=fields)).read()
    async with open_client(app, address=("192.0.2.1", 9)) as client:
        await (await client.request("GET", "/", headers=fields)).read()
        await (await client.request("GET", "/")).read()
    assert seen == [(None, "http"), ((CLIENT, 0), "https"), (("192.0.2.1", 9), "http")]
