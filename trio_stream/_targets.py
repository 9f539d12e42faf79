"""What the command line is asked to serve: an app, an example, a file or a directory."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import sysconfig
import traceback
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from ._app import App, is_imported_to_be_served
from ._console import say
from ._share import Share

if TYPE_CHECKING:
    from types import ModuleType

CHECKOUT = Path(__file__).parent.parent

_LIBRARIES = ("stdlib", "platstdlib", "purelib", "platlib")  # as sysconfig calls them


class UsageError(Exception):
    """What the user asked for can't be done; the message says why, and what to do."""


def find_app(target: str) -> App:
    """Import the app that `target` names, or make one that serves the file or directory it names.

    Raises:
      UsageError: There is none.
    """
    source, colon, attribute = target.rpartition(":")
    if not colon or target.endswith(".py"):  # which may be C:\\app.py
        source, attribute = target, "app"
    example = find_examples().get(target)
    if example is None and _is_path(target) and not _is_importable(source):
        return share(target)
    token = is_imported_to_be_served.set(True)
    try:
        if example is not None or source.endswith(".py"):
            module = import_file(example or Path(source))
        else:
            module = import_module(source)
    finally:
        is_imported_to_be_served.reset(token)
    app = getattr(module, attribute, None)
    if isinstance(app, App):
        return app
    apps = [name for name, value in vars(module).items() if isinstance(value, App)]
    advice = f"name one of its apps: {', '.join(apps)}" if apps else "it needs an `app = App()`"
    if _is_path(target) and example is None and not source.endswith(".py"):
        advice += f"; to share what has that name, say {f'./{target}'!r}"
    if not hasattr(module, attribute):
        raise UsageError(f"{source!r} has no attribute {attribute!r}; {advice}")
    kind = type(app).__name__
    raise UsageError(f"{attribute!r} in {source!r} is a {kind}, not an App; {advice}")


def share(path: str) -> Share:
    """Make an app that serves a file or a directory.

    Raises:
      UsageError: It can't be read.
    """
    try:
        return Share(path)
    except OSError as exc:
        reason = getattr(exc.__cause__ or exc, "strerror", exc)
        raise UsageError(f"can't share {path!r}: {reason}") from exc


def _is_path(target: str) -> bool:
    with suppress(OSError):  # it can't be looked at
        return bool(target) and Path(target).exists()
    return False


def _is_importable(source: str) -> bool:
    """Whether there is a module of that name. Nothing is imported to find out."""
    if source.endswith(".py"):
        with suppress(OSError):  # it can't be looked at
            return Path(source).is_file()
        return False
    first, *others = source.split(".")
    if not all(map(str.isidentifier, (first, *others))):
        return False
    _make_importable()
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # it is loaded, but nobody can tell from where, as `__main__`
        return True
    for name in others:
        if spec is None or spec.submodule_search_locations is None:
            return False
        spec = PathFinder.find_spec(name, spec.submodule_search_locations)
    return spec is not None and spec.origin is not None  # else any directory would be a package


def import_file(path: Path) -> ModuleType:
    """Import a file as `python path` runs it: what lies beside it can be imported.

    Raises:
      UsageError: There is none, or it raises.
    """
    try:
        is_file = path.is_file()
    except OSError as exc:
        raise UsageError(f"can't look at {str(path)!r}: {exc.strerror}") from exc
    if not is_file:
        raise UsageError(f"there is no file {str(path)!r}; --list shows the examples")
    _make_importable(path.parent.resolve())
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # a file called json.py must not hide the real one
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:
        raise _import_failed(str(path), exc) from exc
    return module


def import_module(name: str) -> ModuleType:
    """Import a module, as from a program in the current directory.

    Raises:
      UsageError: There is none, or it raises.
    """
    not_found = UsageError(
        f"there is no file, folder, module or example {name!r}; --list shows the examples"
    )
    if not all(map(str.isidentifier, name.split("."))):
        raise not_found
    _make_importable()
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as exc:
        # What is missing is the module or a package that it is in, not something that it imports.
        if isinstance(exc, ModuleNotFoundError) and f"{name}.".startswith(f"{exc.name}."):
            raise not_found from exc
        raise _import_failed(name, exc) from exc


def _make_importable(directory: Path | None = None) -> None:
    """Have what is in a directory imported first; in the current one, if none is given."""
    with suppress(FileNotFoundError):  # that one was removed
        directory = directory or Path.cwd()
        if str(directory) not in sys.path:
            sys.path.insert(0, str(directory))


def _import_failed(source: str, exc: BaseException) -> UsageError:
    if isinstance(exc, SyntaxError):
        file, line, message = exc.filename, exc.lineno, exc.msg
    else:
        frames = traceback.extract_tb(exc.__traceback__)
        frame = [frame for frame in frames if not _is_of_library(frame.filename)] or frames
        file, line, message = frame[-1].filename, frame[-1].lineno, " ".join(str(exc).split())
    what = f"{type(exc).__name__}: {message}" if message else type(exc).__name__
    return UsageError(f"can't import {source!r}: {what}; see line {line} of {file}")


def _is_of_library(file: str) -> bool:
    """Whether the mistake that an exception tells of is hardly ever in this source file."""
    libraries = sysconfig.get_paths()
    directories = [Path(__file__).parent, *map(Path, {libraries[name] for name in _LIBRARIES})]
    return file.startswith("<") or any(map(Path(file).is_relative_to, directories))


def find_examples() -> dict[str, Path]:
    """The examples in the checkout of this package, by name; none if it is no checkout."""
    if not (CHECKOUT / "pyproject.toml").is_file():  # it is installed among other packages
        return {}
    return {path.stem: path for path in sorted((CHECKOUT / "examples").glob("[!_]*.py"))}


def list_examples() -> None:
    """Print the name of each example, and the first line of what it says about itself."""
    examples = find_examples()
    width = max(map(len, examples), default=0)
    lines = [f"{name:{width}}  {_first_line(path)}" for name, path in examples.items()]
    say(*lines or ["There are no examples here: they come with the source of trio_stream."])


def _first_line(path: Path) -> str:
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes()))
    except SyntaxError as exc:
        return f"(can't be read: {exc.msg}, line {exc.lineno})"
    return (docstring or "").partition("\n")[0]
