"""The command line: `python -m trio_stream [TARGET]`, or `trio-stream`."""

from __future__ import annotations

import argparse
import ast
import errno
import importlib
import importlib.util
import logging
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from . import __version__, _demo
from ._app import App

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

CHECKOUT = Path(__file__).parent.parent

# What to do about an address that is not to be had.
ADVICE = {
    errno.EADDRINUSE: "end the program that uses it, or choose another --port (0: a free one)",
    errno.EACCES: "choose another --port, from 1024 on (0: a free one)",
    errno.EADDRNOTAVAIL: "choose a --host of this machine (0.0.0.0: all its addresses)",
}
OTHER_ADVICE = "choose another --host, such as 127.0.0.1"


class UsageError(Exception):
    """What the user asked for can't be done; the message says why, and what to do."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status: 2 for a usage error."""
    parser = make_parser()
    try:
        options = parser.parse_args(args)
        if options.list:
            list_examples()
            return 0
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        if options.target is None:
            app = _demo.make_app()
            host = f"[{options.host}]" if ":" in options.host else options.host
            where = f"http://{host}:{options.port or 'PORT'}"
            print("The demo: open the address below in a browser, or try")
            print(f"  curl --limit-rate 500k --output song.wav {where}/song.wav")
        else:
            app = find_app(options.target)
        serve(app, options.host, options.port)
    except UsageError as exc:
        print(f"{parser.prog}: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass  # it came before or after the time in which `App.run` waits for signals
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; --help shows what there is")


def make_parser() -> argparse.ArgumentParser:
    """The options that there are."""
    parser = _Parser(
        prog="trio-stream",
        description="Serve an app until Ctrl-C: a demo, or the one that TARGET names.",
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        help="package.module:app, path/to/file.py[:app], or the name of an example; "
        "without it, a demo",
    )
    parser.add_argument("--list", action="store_true", help="show the examples")
    parser.add_argument(
        "--host", default="127.0.0.1", help="the name or address to listen on (%(default)s)"
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8000,
        help="the port to listen on (%(default)s); 0 picks a free one and prints it",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is no port, which is a number from 0 to 65535")
    return int(text)


def serve(app: App, host: str, port: int) -> None:
    """`App.run`.

    Raises:
      UsageError: The address is not to be had.
    """
    try:
        app.run(host=host, port=port)
    except (OSError, UnicodeError) as exc:  # UnicodeError: no name is like that
        reason = getattr(exc, "strerror", None) or str(exc)
        advice = ADVICE.get(getattr(exc, "errno", None) or 0, OTHER_ADVICE)
        raise UsageError(f"can't serve on {host!r}, port {port}: {reason}; {advice}") from exc


# Targets and examples...


def find_app(target: str) -> App:
    """Import the app that `target` names.

    Raises:
      UsageError: There is none.
    """
    source, colon, attribute = target.rpartition(":")
    if not colon or target.endswith(".py"):  # which may be C:\app.py
        source, attribute = target, "app"
    example = None if colon else find_examples().get(source)
    if example is not None or source.endswith(".py"):
        module = import_file(example or Path(source))
    else:
        module = import_module(source)
    app = getattr(module, attribute, None)
    if isinstance(app, App):
        return app
    apps = [name for name, value in vars(module).items() if isinstance(value, App)]
    advice = f"name one of its apps: {', '.join(apps)}" if apps else "it needs an `app = App()`"
    if not hasattr(module, attribute):
        raise UsageError(f"{source!r} has no attribute {attribute!r}; {advice}")
    kind = type(app).__name__
    raise UsageError(f"{attribute!r} in {source!r} is a {kind}, not an App; {advice}")


def import_file(path: Path) -> ModuleType:
    """Import a file as `python path` runs it: what lies beside it can be imported.

    Raises:
      UsageError: There is none, or it raises.
    """
    if not path.is_file():
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
    not_found = UsageError(f"there is no module and no example {name!r}; --list shows the examples")
    if not all(map(str.isidentifier, name.split("."))):
        raise not_found
    _make_importable(Path.cwd())
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as exc:
        # What is missing is the module or a package that it is in, not something that it imports.
        if isinstance(exc, ModuleNotFoundError) and f"{name}.".startswith(f"{exc.name}."):
            raise not_found from exc
        raise _import_failed(name, exc) from exc


def _make_importable(directory: Path) -> None:
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


def _import_failed(source: str, exc: BaseException) -> UsageError:
    if isinstance(exc, SyntaxError):
        file, line, message = exc.filename, exc.lineno, exc.msg
    else:
        frame = traceback.extract_tb(exc.__traceback__)[-1]
        file, line, message = frame.filename, frame.lineno, " ".join(str(exc).split())
    what = f"{type(exc).__name__}: {message}" if message else type(exc).__name__
    return UsageError(f"can't import {source!r}: {what}; see line {line} of {file}")


def find_examples() -> dict[str, Path]:
    """The examples by name: those in ./examples, and those in the checkout of this package."""
    directories = [Path("examples")]
    if (CHECKOUT / "pyproject.toml").is_file():  # it is not installed among other packages
        directories.append(CHECKOUT / "examples")
    examples: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("[!_]*.py")):
            examples.setdefault(path.stem, path)
    return examples


def list_examples() -> None:
    """Print the name of each example, and the first line of what it says about itself."""
    examples = find_examples()
    width = max(map(len, examples), default=0)
    for name, path in examples.items():
        print(f"{name:{width}}  {_first_line(path)}")
    if not examples:
        print("There are no examples here: they come with the source of trio_stream.")


def _first_line(path: Path) -> str:
    try:
        docstring = ast.get_docstring(ast.parse(path.read_bytes()))
    except SyntaxError as exc:
        return f"(can't be read: {exc.msg}, line {exc.lineno})"
    return (docstring or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
