"""Trees: nothing leads out of one, nothing but files and folders is in it, and races are lost."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.clients import open_descriptors, settled_descriptors
from tests.hostile_paths import CHAIN, PUBLIC, SECRET, plant
from trio_stream._tree import Entry, Tree

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that no test changes."""
    return plant(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def tree(root: Path) -> Tree:
    return Tree(root)


def read(tree: Tree, path: str) -> bytes:
    with tree.open(path.split("/") if path else []) as file:
        return file.read(0, 1000)


@pytest.mark.parametrize(
    "path",
    [
        "a.txt",
        "sub/deep/c.txt",
        "in.txt",
        "in-absolute.txt",
        "out-and-in.txt",
        "in/b.txt",
        "in-deep/c.txt",
        "self/self/in/deep/c.txt",
        "inner-0",
        "caf\xe9.txt",
    ],
)
def test_open(tree: Tree, path: str) -> None:
    before = settled_descriptors()
    assert read(tree, path) == PUBLIC
    assert open_descriptors() == before


NOT_FOUND = (
    *(
        "missing",
        "a.txt/x",
        "missing/x",
        "",
        "/",
        "..",
        "../secret.txt",
        "sub/../a.txt",
        ".",
        "./a.txt",
    ),
    *(".hidden", ".git/config", "sub/.hidden", "a\\b.txt", "sub\\b.txt", "a.txt\0", "\0"),
    *(
        "out.txt",
        "out/secret.txt",
        "up/secret.txt",
        "up",
        "out",
        "etc/passwd",
        "look-alike/secret.txt",
    ),
    *(
        "loop",
        "loop-a/x",
        "loop-below",
        "nowhere",
        "nowhere-out",
        "long-name",
        "x" * 256,
        "chain-0",
    ),
    *("fifo", "fifo-link", "socket", "zero", "disk", "fifo/x", "evil/index.html", "a.txt.gz"),
)


def takers(tree: Tree) -> tuple[Callable[[list[str]], object], ...]:
    """All that can be done with names."""
    return tree.open, tree.entries, lambda names: next(tree.walk(names))


@pytest.mark.parametrize("path", NOT_FOUND)
def test_not_found(tree: Tree, path: str) -> None:
    before = settled_descriptors()
    names = [path] if path in ("", "/") else path.split("/")
    for take in takers(tree):
        with pytest.raises(FileNotFoundError) as caught:
            take(names)
        assert caught.value.filename == "/".join(names)
    assert open_descriptors() == before


@pytest.mark.parametrize("path", ["", "sub", "empty", "in", "in-deep", "self", "self/self"])
def test_folders_are_no_files(tree: Tree, path: str) -> None:
    before = settled_descriptors()
    with pytest.raises(IsADirectoryError):
        tree.open(path.split("/") if path else [])
    assert open_descriptors() == before


def test_dotfiles(root: Path) -> None:
    tree = Tree(root, dotfiles=True)
    for path in (".hidden", ".git/config", "sub/.hidden", "..b", "self/.hidden"):
        assert read(tree, path) == SECRET
    assert read(tree, ".../dots.txt") == PUBLIC
    for path in (".", "..", "../secret.txt", "sub/.", "sub/..", "out.txt"):
        with pytest.raises(FileNotFoundError):
            read(tree, path)


def test_symlinks_out(root: Path) -> None:
    tree = Tree(root, symlinks_out=True)
    for path in ("out.txt", "out/secret.txt", "up/root2/secret.txt", "evil/index.html", "chain-0"):
        assert read(tree, path) == SECRET
    assert read(tree, "in.txt") == PUBLIC
    for path in (
        "..",
        "../secret.txt",
        ".hidden",
        "fifo-link",
        "loop",
        "slash/dev/zero",
        "nowhere",
    ):
        with pytest.raises(FileNotFoundError):
            read(tree, path)
    with pytest.raises(IsADirectoryError):
        read(tree, "slash")


def test_root_behind_a_symlink_that_is_changed(tmp_path: Path) -> None:
    """So a new version of a site comes into service at once."""
    plant(tmp_path)
    (tmp_path / "current").symlink_to("root")
    tree = Tree(tmp_path / "current")
    assert read(tree, "in/b.txt") == PUBLIC
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "a.txt").write_bytes(b"next")
    (tmp_path / "new").symlink_to("next")
    (tmp_path / "new").rename(tmp_path / "current")
    assert read(tree, "a.txt") == b"next"
    with pytest.raises(FileNotFoundError):
        read(tree, "in/b.txt")


def test_root_that_is_relative(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    tree = Tree("root")
    monkeypatch.chdir("/")
    assert read(tree, "in/b.txt") == PUBLIC


@pytest.mark.parametrize("name", ["missing", "secret.txt", "root/fifo"])
def test_root_must_be_a_folder(root: Path, name: str) -> None:
    with pytest.raises(NotADirectoryError, match=name):
        Tree(root.parent / name)


def test_root_that_has_gone(tmp_path: Path) -> None:
    root = plant(tmp_path)
    tree = Tree(root)
    root.rename(root.with_name("moved"))
    for take in takers(tree):
        with pytest.raises(FileNotFoundError):
            take(["a.txt"])


# What is in a folder...


def test_entries(tmp_path: Path) -> None:
    root = plant(tmp_path)
    os.utime(root / "a.txt", (1000, 1000))
    os.utime(root / "sub", (2000, 2000))
    entries = {entry.name: entry for entry in Tree(root).entries([])}
    assert entries["a.txt"] == Entry("a.txt", is_directory=False, size=len(PUBLIC), modified=1000)
    assert entries["sub"] == Entry("sub", is_directory=True, size=0, modified=2000)
    assert entries["in"] == Entry("in", is_directory=True, size=0, modified=2000)
    assert entries["in.txt"].size == len(PUBLIC)
    # Just what can be opened.
    for name, entry in entries.items():
        if entry.is_directory:
            Tree(root).entries([name])
        else:
            Tree(root).open([name]).close()
    hidden = {item.name for item in root.iterdir()} - entries.keys()
    assert hidden == {
        *("fifo", "fifo-link", "socket", "zero", "disk", "loop", "loop-a", "loop-b", "loop-below"),
        *("out.txt", "out-absolute.txt", "out-twice.txt", "out-by-sub.txt", "out", "out-absolute"),
        *("up", "slash", "etc", "proc", "home", "look-alike", "a.txt.gz", "nowhere", "nowhere-out"),
        *("long-name", ".hidden", ".git", ".htpasswd", "..b", "..a", "...", "a\\b.txt"),
        *(f"chain-{number}" for number in range(CHAIN + 1)),
    } - ({"zero", "disk"} if not (root / "zero").exists() else set())


def test_entries_of_folders(root: Path) -> None:
    tree = Tree(root)
    assert {entry.name for entry in tree.entries(["in"])} == {"b.txt", "deep"}
    assert tree.entries(["empty"]) == []
    assert tree.entries(["evil"]) == []
    everything = Tree(root, dotfiles=True, symlinks_out=True)
    assert {entry.name for entry in everything.entries(["in"])} == {
        *("b.txt", "b.txt.gz", "deep", ".hidden", "up-up")
    }


def test_walk(tree: Tree) -> None:
    before = settled_descriptors()
    found = {}
    for path, file in tree.walk([]):
        with file:
            found[path] = file.read(0, 100)
    assert set(found.values()) == {PUBLIC}
    assert found.keys() >= {"a.txt", "in.txt", "sub/b.txt", "sub/deep/c.txt", "full/index.html"}
    assert not any(path.startswith(("in/", "self/", "up/", "out/", ".")) for path in found)
    below = []
    for path, file in tree.walk(["in"]):
        file.close()
        below.append(path)
    assert sorted(below) == ["b.txt", "deep/c.txt"]
    assert list(tree.walk(["empty"])) == []
    assert open_descriptors() == before


def test_walk_while_the_folder_changes(tmp_path: Path) -> None:
    """What has gone since the folder was read, or become something else, is left out."""
    for name in ("a", "b", "c", "d", "folder/x", "other/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(PUBLIC)
    found = []
    for path, file in Tree(tmp_path).walk([]):
        file.close()
        found.append(path)
        if path == "a":
            (tmp_path / "b").unlink()
            (tmp_path / "c").unlink()
            (tmp_path / "c").mkdir()
            (tmp_path / "folder" / "x").unlink()
            (tmp_path / "folder").rmdir()
    assert found == ["a", "d", "other/x"]


def test_walk_into_trouble(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def fail(fd: int | str) -> object:
        if isinstance(fd, int) and os.fstat(fd).st_ino == sub:
            raise OSError(errno.EIO, "broken disk")
        return real(fd)

    sub = Path(tree._root, "sub").stat().st_ino
    monkeypatch.setattr(os, "scandir", fail)
    before = settled_descriptors()
    with pytest.raises(OSError, match="broken disk"):
        for _, file in tree.walk([]):
            file.close()
    assert open_descriptors() == before


# Trouble...


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM])
def test_trouble_is_told(tree: Tree, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the system is no answer to a client: the operator must hear of it."""

    def fail(*args: object, **kwargs: object) -> int:
        raise OSError(number, "trouble")

    monkeypatch.setattr(os, "open", fail)
    for take in takers(tree):
        with pytest.raises(OSError, match="trouble") as caught:
            take(["a.txt"])
        assert not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("number", [errno.EILSEQ, errno.EMLINK, errno.EACCES, errno.ENXIO])
def test_what_other_systems_say_of_a_name(
    tree: Tree, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is no UTF-8 (macOS, and some file systems), or is a symlink (FreeBSD)."""

    def fail(*args: object, **kwargs: object) -> os.stat_result:
        raise OSError(number, "not such a name")

    monkeypatch.setattr(os, "stat", fail)
    monkeypatch.setattr(os, "lstat", fail)
    with pytest.raises(FileNotFoundError):
        tree.open([os.fsdecode(b"\xff")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
def test_no_right_to_it(tmp_path: Path) -> None:
    root = plant(tmp_path)
    tree = Tree(root)
    (root / "a.txt").chmod(0)
    (root / "sub").chmod(0)
    for path in ("a.txt", "sub/b.txt"):
        with pytest.raises(FileNotFoundError):
            read(tree, path)
    (root / "sub").chmod(0o100)  # to pass is enough
    assert read(tree, "sub/b.txt") == PUBLIC


# Races...


class Swap:
    """A folder that is a symlink to one outside every other time."""

    def __init__(self, folder: Path, target: Path) -> None:
        self._folder = folder
        self._aside = folder.with_name(f"{folder.name} aside")
        self._target = target

    def __call__(self) -> None:
        if self._folder.is_symlink():
            self._folder.unlink()
            self._aside.rename(self._folder)
        else:
            self._folder.rename(self._aside)
            self._folder.symlink_to(self._target)


@pytest.fixture
def racing(tmp_path: Path) -> Path:
    """A tree with `a/b/file.txt`, and the secret in the same places outside."""
    for place, data in (("root", PUBLIC), ("outside", SECRET)):
        (tmp_path / place / "a" / "b").mkdir(parents=True)
        (tmp_path / place / "a" / "b" / "file.txt").write_bytes(data)
        (tmp_path / place / "a" / "file.txt").write_bytes(data)
    return tmp_path / "root"


@pytest.mark.parametrize("swapped", ["a", "a/b", "a/b/file.txt"])
@pytest.mark.parametrize("swaps", [1, 2])
@pytest.mark.parametrize("starts_outside", [False, True])
def test_swapped_at_any_step(
    racing: Path,
    swapped: str,
    swaps: int,
    starts_outside: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before each system call there is, in turn, and once more before the next."""
    swap = Swap(racing / swapped, racing.parent / "outside" / swapped)
    before = settled_descriptors()
    at = calls = 0
    is_swapping = True

    def swapping(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal calls, is_swapping
            if is_swapping:
                is_swapping = False
                if at <= calls < at + swaps:
                    swap()
                calls += 1
                is_swapping = True
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        tree = Tree(racing)
        for name in ("open", "stat", "lstat", "readlink", "fstat"):
            patch.setattr(os, name, swapping(getattr(os, name)))
        results = set[bytes | None]()
        while calls >= at:  # as long as there is a call to come before
            is_swapping = False
            if (racing / swapped).is_symlink() != starts_outside:
                swap()
            is_swapping, calls = True, 0
            try:
                results.add(read(tree, "a/b/file.txt"))
            except FileNotFoundError:
                results.add(None)
            at += 1
    assert at > 5
    assert results <= {PUBLIC, None}
    assert starts_outside or PUBLIC in results
    assert open_descriptors() == before


def test_swapped_all_the_time(racing: Path) -> None:
    swap = Swap(racing / "a", racing.parent / "outside" / "a")
    tree = Tree(racing)
    over = threading.Event()

    def keep_swapping() -> None:
        while not over.is_set():
            swap()

    results: list[bytes | None] = []
    before = settled_descriptors()
    thread = threading.Thread(target=keep_swapping)
    thread.start()
    try:
        for path in ("a/b/file.txt", "a/file.txt") * 1000:
            try:
                results.append(read(tree, path))
            except FileNotFoundError:
                results.append(None)
    finally:
        over.set()
        thread.join()
    assert set(results) <= {PUBLIC, None}
    assert open_descriptors() == before
