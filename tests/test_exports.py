"""The public names, their documentation, and the layers that the package is built of."""

from __future__ import annotations

import ast
import inspect
import pickle
import re
from importlib import resources
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

import trio_stream
import trio_stream.testing
from trio_stream import AbortReason, Config, SendResult, Stats

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC = {
    trio_stream: [
        "AbortReason",
        "App",
        "BadRequestError",
        "Certificates",
        "Config",
        "EventStream",
        "FormFile",
        "Part",
        "Request",
        "Response",
        "SendResult",
        "Server",
        "Stats",
        "WriteResult",
    ],
    trio_stream.testing: ["Client", "ClientResponse", "Connect", "open_client", "open_clients"],
}

PACKAGE = resources.files(trio_stream)
SOURCES = {
    file.name.removesuffix(".py"): file.read_text("utf-8")
    for file in PACKAGE.iterdir()
    if file.name.endswith(".py")
}

# What the drawing in `__init__.py` leaves out, and what is the next above it.
NOT_DRAWN = {"_version": "_config"}


# Names...


def test_public_names() -> None:
    names = [
        name
        for name, value in vars(trio_stream).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    ]
    assert sorted(names) == PUBLIC[trio_stream]
    modules = [
        name
        for name, value in vars(trio_stream).items()
        if not name.startswith("_") and isinstance(value, ModuleType)
    ]
    assert modules == ["testing"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\+dev)?", trio_stream.__version__)


def test_public_names_are_exported_to_type_checkers() -> None:
    exported = [
        alias.asname
        for node in ast.parse(SOURCES["__init__"]).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    ]
    assert exported.pop() == "__version__"
    assert sorted(exported) == PUBLIC[trio_stream]


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in names]
)
def test_public_name_says_where_it_is_imported_from(module: ModuleType, name: str) -> None:
    value = getattr(module, name)
    assert value.__module__ == module.__name__
    assert value.__qualname__ == value.__name__ == name


def test_testing_has_no_other_public_names() -> None:
    own = [
        name
        for name, value in vars(trio_stream.testing).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == trio_stream.testing.__name__
    ]
    assert sorted(own) == PUBLIC[trio_stream.testing]


def test_values_can_be_pickled() -> None:
    stats = Stats(requests=1)
    stats.aborts[AbortReason.STALLED] += 1
    for value in (AbortReason.STALLED, Config(linger_timeout=1), SendResult(True, False), stats):
        data = pickle.dumps(value)
        assert b"trio_stream._" not in data
        assert pickle.loads(data) == value


# Documentation...


def public_members() -> Iterator[tuple[str, object]]:
    for module, names in PUBLIC.items():
        yield module.__name__, module
        for name in names:
            value = getattr(module, name)
            yield name, value
            if inspect.isclass(value):
                own = [
                    owner for owner in value.__mro__ if owner.__module__.startswith("trio_stream")
                ]
                for member_name, member in (
                    (n, m) for owner in own for n, m in vars(owner).items()
                ):
                    described = inspect.isroutine(member) or inspect.isdatadescriptor(member)
                    named = not member_name.startswith("_")
                    if named and (described or hasattr(member, "__get__")):
                        yield f"{name}.{member_name}", member


# The fields of data classes and named tuples are in the docstring of the class, or below them.
FIELDS = re.compile(
    r"(Config|FormFile|Stats|SendResult|WriteResult)\.\w+|AbortReason\.(name|value)"
)


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, value in public_members() if not FIELDS.fullmatch(name)],
)
def test_public_name_has_a_docstring(name: str, value: object) -> None:
    doc = getattr(value, "__doc__", None)
    assert doc is not None, name
    first, _, rest = inspect.cleandoc(doc).partition("\n")
    assert re.fullmatch(r"[A-Z`].*[.:]", first), name
    assert rest.startswith("\n") or not rest, name


def test_docstrings_were_looked_at() -> None:
    names = [name for name, _ in public_members()]
    for name in ("App.get", "Response.send_chunk", "Response.aborted", "Request.query"):
        assert name in names
    assert "Client.window" in names


def test_every_module_has_a_docstring() -> None:
    for name, source in SOURCES.items():
        doc = ast.get_docstring(ast.parse(source))
        assert doc is not None, name
        assert doc.partition("\n")[0].endswith("."), name


def test_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "py.typed").read_bytes() == b""


# Layers...


def drawn_groups() -> dict[str, list[list[str]]]:
    """The layers in the comment of `__init__.py`, from the top to the bottom, by their group."""
    drawing = re.compile(r"^#   (\S.*)\n((?:#     .*\n)+)", re.MULTILINE)
    groups = {
        title: [re.findall(r"\b_\w+|\btesting\b", line) for line in lines.splitlines()]
        for title, lines in drawing.findall(SOURCES["__init__"])
    }
    assert all(layer for layers in groups.values() for layer in layers)
    return groups


def heights() -> dict[str, float]:
    layers = [layer for layers in drawn_groups().values() for layer in layers]
    drawn = {name: -float(row) for row, layer in enumerate(layers) for name in layer}
    assert len(drawn) == sum(map(len, layers))
    assert drawn.keys().isdisjoint(NOT_DRAWN)
    return drawn | {name: drawn[above] - 0.5 for name, above in NOT_DRAWN.items()}


def imports(source: str) -> Iterator[str]:
    """All modules that are imported anywhere, at run time or for type checkers."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1
            if not node.level:
                assert node.module is not None
                yield node.module
            elif node.module is not None:
                yield f".{node.module}"
            else:
                yield from (f".{alias.name}" for alias in node.names)


def test_every_module_has_a_layer() -> None:
    assert set(heights()) == set(SOURCES) - {"__init__"}


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"__init__"}))
def test_module_imports_only_from_below(name: str) -> None:
    height = heights()
    for imported in imports(SOURCES[name]):
        assert not imported.startswith("trio_stream"), "imports within the package are relative"
        if imported.startswith(".") and imported != ".__version__":
            assert height[imported[1:]] < height[name], imported


def test_imports_are_found() -> None:
    assert list(
        imports("import a, b.c\nfrom d.e import f\nfrom .g import h\nfrom . import i, j")
    ) == [*("a", "b.c", "d.e", ".g", ".i", ".j")]
    assert list(imports("if TYPE_CHECKING:\n    import a\ndef f():\n    from .b import c")) == [
        *("a", ".b")
    ]
    assert {"._config", "._response_head", "email.utils"} <= set(imports(SOURCES["_protocol"]))


@pytest.mark.parametrize(
    "name",
    [
        *(name for layer in drawn_groups()["HTTP without I/O"] for name in layer),
        *("_config", "_request", "_routing", "_stats", "_wording"),  # of other groups
    ],
)
def test_part_without_io_knows_no_trio(name: str) -> None:
    roots = {imported.partition(".")[0] for imported in imports(SOURCES[name])}
    assert roots.isdisjoint({"trio", "trio_util", "socket", "select", "os", "asyncio"})


def caught(source: str) -> Iterator[str]:
    """The exceptions of every `except` and every `suppress`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            yield ast.unparse(node.type)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            yield from map(ast.unparse, node.args)


def test_errors_of_the_system_are_translated_where_they_come_from() -> None:
    modules = {
        name
        for name, source in SOURCES.items()
        for error in caught(source)
        if re.search(r"\b(OSError|BlockingIOError|ConnectionError)\b", error)
    }
    command_line = {"__main__", "_announce", "_command_line", "_line_writer", "_log_writer"}
    command_line |= {"_progress", "_reload", "_targets", "_worker", "_workers"}
    server = {"_accept", "_listeners", "_signals", "_worker_stats"}
    files = {"_file", "_file_answer", "_read_part", "_static", "_tree"}
    others = {"_certificates", "_readiness", "_socket_transport", "_console"}
    assert modules == command_line | server | files | others


def test_what_is_caught_is_found() -> None:
    source = "try:\n    pass\nexcept (a, b.c) as exc:\n    with suppress(d, e), x.suppress(f): g(h)"
    assert list(caught(source)) == ["(a, b.c)", "d", "e", "f"]
