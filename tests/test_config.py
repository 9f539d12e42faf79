"""The limits and timeouts: their defaults, their documentation, and what values are refused."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from math import inf, nan
from typing import Any

import pytest
import trio
import trio.testing

from trio_stream import App, Config, _config
from trio_stream.testing import open_client

DEFAULTS: dict[str, object] = {
    "stall_timeout": 60.0,
    "half_close": "abort",
    "notsent_lowat": 128 * 1024,
    "stream_buffer_size": 64 * 1024,
    "send_budget": 2 * 1024 * 1024,
    "max_queued_bytes": 1024 * 1024,
    "max_head_size": 16 * 1024,
    "max_target_size": 8 * 1024,
    "max_header_count": 100,
    "max_body_size": 1024 * 1024,
    "max_form_fields": 1000,
    "max_discarded_body": 64 * 1024,
    "max_requests": inf,
    "max_connections": 10_000,
    "max_connections_per_client": inf,
    "head_timeout": 20.0,
    "keep_alive_timeout": 75.0,
    "min_upload_rate": 240.0,
    "min_download_rate": 0.0,
    "rate_grace": 5.0,
    "request_timeout": inf,
    "handshake_timeout": 10.0,
    "shutdown_grace": 25.0,
    "proxy_protocol": False,
    "trusted_proxies": (),
    "linger_timeout": 2.0,
}
SIZES = (
    "notsent_lowat",
    "stream_buffer_size",
    "send_budget",
    "max_queued_bytes",
    "max_head_size",
    "max_target_size",
    "max_header_count",
    "max_form_fields",
)
COUNTS = ("max_requests", "max_connections", "max_connections_per_client")
RATES = ("min_upload_rate", "min_download_rate")
TIMEOUTS = (
    "stall_timeout",
    "linger_timeout",
    "head_timeout",
    "keep_alive_timeout",
    "rate_grace",
    "request_timeout",
    "handshake_timeout",
    "shutdown_grace",
)


def make_config(name: str, value: object) -> Config:
    fields: dict[str, Any] = {name: value}
    return Config(**fields)


def test_defaults() -> None:
    assert dataclasses.asdict(Config()) == DEFAULTS
    for name, default in DEFAULTS.items():
        assert type(getattr(Config(), name)) is type(default)
    assert App().config == Config()


@pytest.mark.parametrize("name", DEFAULTS)
def test_config_is_frozen(name: str) -> None:
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(config, name, DEFAULTS[name])
    assert config == Config()


def test_config_takes_nothing_else() -> None:
    with pytest.raises(TypeError):
        Config(60.0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Config(stall_time=60.0)  # type: ignore[call-arg]
    with pytest.raises((AttributeError, TypeError)):  # CPython's issue 90562 decides which
        Config().stall_time = 60.0  # type: ignore[attr-defined]
    assert not hasattr(Config(), "__dict__")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in SIZES for value in (1, 2**30)),
        *((name, value) for name in TIMEOUTS for value in (1e-9, 0.5, 7, inf)),
        *((name, value) for name in COUNTS for value in (1, 2**30, inf)),
        *((name, value) for name in RATES for value in (0, 1e-9, 7)),
        ("max_body_size", 0),
        ("max_body_size", 2**40),
        ("max_discarded_body", 0),
        ("max_discarded_body", 2**40),
        ("half_close", "abort"),
        ("half_close", "serve"),
        ("trusted_proxies", ("127.0.0.1", "10.0.0.0/8", "::1", "fd00::/8", "unix")),
    ],
)
def test_value(name: str, value: object) -> None:
    config = make_config(name, value)
    assert dataclasses.asdict(config) == DEFAULTS | {name: value}
    assert len({Config(), config, dataclasses.replace(config)}) == 1 + (DEFAULTS[name] != value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *(
            (name, value, "{name} must be an integer of at least 1, not {value!r}")
            for name in SIZES
            for value in (0, -1, 0.5, -inf)
        ),
        ("max_body_size", -1, "{name} must be an integer of at least 0, not {value!r}"),
        ("max_discarded_body", -1, "{name} must be an integer of at least 0, not {value!r}"),
        *(
            (
                name,
                value,
                "{name} must be more than 0 seconds, or math.inf for no limit, not {value!r}",
            )
            for name in TIMEOUTS
            for value in (0, 0.0, -0.0, -1, -inf, nan)
        ),
        *(
            (
                name,
                value,
                "{name} must be an integer of at least 1, or math.inf for no limit, not {value!r}",
            )
            for name in COUNTS
            for value in (0, -1, 1.5, -inf, nan, "1", None)
        ),
        *(
            (
                name,
                value,
                "{name} must be a number of bytes a second, or 0 for no minimum, not {value!r}",
            )
            for name in RATES
            for value in (-1, inf, nan, "1", None)
        ),
        *(
            ("trusted_proxies", (value,), 'trusted_proxies must be addresses, networks or "unix": ')
            for value in ("", "localhost", "10.0.0.1/8", "127.0.0.1:80", "Unix")
        ),
        ("trusted_proxies", "::1", "{name} must be a tuple, not {value!r}"),
        ("trusted_proxies", ["::1"], "{name} must be a tuple, not {value!r}"),
        (
            "proxy_protocol",
            True,
            "{name} needs trusted_proxies: it closes all other connections",
        ),
        *(
            ("half_close", value, '{name} must be "abort" or "serve", not {value!r}')
            for value in ("", "Abort", "ignore", None, True, 0)
        ),
    ],
)
def test_value_that_can_not_work(name: str, value: object, message: str) -> None:
    with pytest.raises((ValueError, TypeError)) as error:
        make_config(name, value)
    assert str(error.value).startswith(message.format(name=name, value=value))
    if not message.endswith(" "):
        assert str(error.value) == message.format(name=name, value=value)


@pytest.mark.parametrize("name", [*SIZES, "max_body_size", "max_discarded_body"])
@pytest.mark.parametrize("value", [nan, inf, 1.5, "1", None, [1]])
def test_size_that_is_no_integer(name: str, value: object) -> None:
    with pytest.raises(
        (ValueError, TypeError), match=rf"^{name}\b.* not {re.escape(repr(value))}$"
    ):
        make_config(name, value)


def test_notsent_lowat_that_the_kernel_does_not_take() -> None:
    assert Config(notsent_lowat=2**31 - 1).notsent_lowat == 2**31 - 1
    with pytest.raises(ValueError, match=r"^notsent_lowat\b.* not 2147483648$"):
        Config(notsent_lowat=2**31)


@pytest.mark.parametrize("name", TIMEOUTS)
@pytest.mark.parametrize("value", ["1", None, [1.0], 1j])
def test_timeout_that_is_no_number(name: str, value: object) -> None:
    with pytest.raises(
        (ValueError, TypeError), match=rf"^{name}\b.* not {re.escape(repr(value))}$"
    ):
        make_config(name, value)


async def test_config_of_an_app_is_that_of_its_server(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_client(App(config=Config(max_head_size=100))) as client:
        await client.send_all(b"GET /" + 95 * b"a")
        await trio.testing.wait_all_tasks_blocked()
        assert client.unread == 0
        await client.send_all(b"a")
        with trio.fail_after(1):
            assert (await client.receive_some()).startswith(b"HTTP/1.1 414 ")


# Documentation...


def documented_fields() -> dict[str, tuple[str, str]]:
    """Annotation and docstring of each field, as they are in the source."""
    tree = ast.parse(inspect.getsource(_config))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef))
    fields = {}
    for statement, following in zip(body, [*body[1:], ast.Pass()], strict=True):
        if isinstance(statement, ast.AnnAssign):
            assert isinstance(statement.target, ast.Name)
            doc = ""
            if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
                doc = inspect.cleandoc(str(following.value.value))
            fields[statement.target.id] = ast.unparse(statement.annotation), doc
    return fields


def test_every_field_has_a_docstring() -> None:
    fields = documented_fields()
    assert list(fields) == [field.name for field in dataclasses.fields(Config)]
    for name, (_, doc) in fields.items():
        assert re.fullmatch(r"[A-Z].*\.", doc, re.DOTALL), name


def test_every_field_has_a_unit() -> None:
    assert Config.__doc__ is not None
    assert "Sizes are in bytes, times in seconds of Trio's clock." in Config.__doc__
    for name, (annotation, doc) in documented_fields().items():
        if annotation == "float":
            # Seconds, where it does not say what else it counts.
            assert name.endswith(("_timeout", "_grace")) or re.search(
                r"\b([Bb]ytes a second|[Hh]ow many (requests|connections))\b", doc
            )
        elif annotation == "bool":
            assert doc.startswith("Whether ")
        elif annotation == "tuple[str, ...]":
            assert "ddresses" in doc
        elif annotation == "int":
            # Bytes, where it does not say what else it counts.
            assert name.endswith("_size") or re.search(r"\b(bytes|data|[Hh]ow (much|many))\b", doc)
        else:
            assert annotation.startswith("Literal[")
