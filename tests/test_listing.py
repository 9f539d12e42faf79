"""The page of a folder: its order, its links, and names that try to be more than names."""

from __future__ import annotations

import os
import re
import time
from html import escape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_stream._listing import listing_page, sort_entries
from trio_stream._tree import Entry
from trio_stream._wording import count, human_duration, human_size, printable

if TYPE_CHECKING:
    from collections.abc import Iterator


class Link(NamedTuple):
    text: str
    href: str
    label: str


class Page(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.links: list[Link] = []
        self.texts: list[str] = []
        self.feed(page.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag == "a":
            self.links.append(Link("", attributes["href"], attributes.get("aria-label", "")))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.links and self._is_in_link:
            self.links[-1] = self.links[-1]._replace(text=self.links[-1].text + data)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self.tags.append(("/a", {}))

    @property
    def _is_in_link(self) -> bool:
        return [tag for tag, _ in self.tags if tag in ("a", "/a")][-1] == "a"

    def find(self, tag: str, **attributes: str) -> list[dict[str, str]]:
        wanted = attributes.items()
        return [found for name, found in self.tags if name == tag and wanted <= found.items()]


def file(name: str, size: int = 0, modified: float = 0.0) -> Entry:
    return Entry(name, is_directory=False, size=size, modified=modified)


def folder(name: str, modified: float = 0.0) -> Entry:
    return Entry(name, is_directory=True, size=0, modified=modified)


def names_on(page: bytes) -> list[str]:
    """The names in the order of the page; folders with their slash."""
    table = page.decode().partition("<tbody>")[2]
    hrefs = re.findall(r'<td class="name"><a href="\./([^"]*)">', table)
    return [unquote_to_bytes(href).decode("utf-8", "surrogateescape") for href in hrefs]


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A time zone behind UTC, without summer time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5")
        time.tzset()
        yield
    time.tzset()


# Order...

ENTRIES = [
    file("b.txt", 30, 200),
    folder("zoo", 100),
    file("A.txt", 10, 300),
    file("track 10", 20, 100),
    folder("Ape", 400),
    file("track 9", 20, 500),
]


@pytest.mark.parametrize(
    ("query", "files", "folders"),
    [
        ({}, "A.txt b.txt 9 10", "Ape/ zoo/"),
        ({"sort": "name", "order": "descending"}, "10 9 b.txt A.txt", "zoo/ Ape/"),
        ({"order": "descending"}, "10 9 b.txt A.txt", "zoo/ Ape/"),
        ({"sort": "size"}, "A.txt 9 10 b.txt", "Ape/ zoo/"),
        ({"sort": "size", "order": "descending"}, "b.txt 9 10 A.txt", "Ape/ zoo/"),
        ({"sort": "time"}, "10 b.txt A.txt 9", "zoo/ Ape/"),
        ({"sort": "time", "order": "descending"}, "9 A.txt b.txt 10", "Ape/ zoo/"),
        ({"sort": "kind", "order": "<"}, "A.txt b.txt 9 10", "Ape/ zoo/"),
        ({"sort": "", "order": "ascending"}, "A.txt b.txt 9 10", "Ape/ zoo/"),
    ],
)
def test_folders_come_first_then_what_is_sorted_by(
    query: dict[str, str], files: str, folders: str
) -> None:
    found = names_on(listing_page((), ENTRIES, query))
    assert [name.removeprefix("track ") for name in found] == [*folders.split(), *files.split()]


@given(st.permutations([*ENTRIES, file("a.txt", 10, 300), file("007"), file("7"), file("07")]))
def test_the_order_depends_on_nothing_else(entries: list[Entry]) -> None:
    for sort in ("name", "size", "time"):
        for order in ("ascending", "descending"):
            assert sort_entries(entries, sort, order) == sort_entries(
                sorted(entries, key=lambda entry: entry.name), sort, order
            )


@given(st.lists(st.text(), unique=True))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    found = sort_entries([file(name) for name in names], "name", "ascending")
    assert sorted(entry.name for entry in found) == sorted(names)


@pytest.mark.parametrize(
    ("query", "headings"),
    [
        (
            {},
            {
                "Name ▴": "./?sort=name&order=descending",
                "Size": "./?sort=size&order=descending",
                "Modified": "./?sort=time&order=descending",
            },
        ),
        (
            {"sort": "size", "order": "descending"},
            {
                "Name": "./?sort=name&order=ascending",
                "Size ▾": "./?sort=size&order=ascending",
                "Modified": "./?sort=time&order=descending",
            },
        ),
    ],
)
def test_headings_sort_by_their_column_and_turn_its_order_round(
    query: dict[str, str], headings: dict[str, str]
) -> None:
    page = Page(listing_page((), ENTRIES, query))
    assert {link.text: link.href for link in page.links if "?sort=" in link.href} == headings
    (state,) = [found for found in page.find("th") if "aria-sort" in found]
    assert state == {
        "class": query.get("sort", "name"),
        "aria-sort": query.get("order", "ascending"),
    }


# Links...


@pytest.mark.parametrize(
    ("names", "crumbs"),
    [
        ((), []),
        (("a",), [("top", "../")]),
        (("a", "b"), [("top", "../../"), ("a", "../")]),
        (("a", "<i>", "c"), [("top", "../../../"), ("a", "../../"), ("<i>", "../")]),
    ],
)
def test_breadcrumbs_lead_up(names: tuple[str, ...], crumbs: list[tuple[str, str]]) -> None:
    html = listing_page(names, (), {}, root="top")
    page = Page(html)
    assert [(link.text, link.href) for link in page.links] == crumbs
    assert page.find("h1")
    assert f"<h1><bdi>{escape(['top', *names][-1])}</bdi></h1>" in html.decode()


HOSTILE = {
    "<script>alert(1)</script>": "./%3Cscript%3Ealert%281%29%3C%2Fscript%3E",
    "\"' onmouseover='x": "./%22%27%20onmouseover%3D%27x",
    "&lt;b&gt;&amp;": "./%26lt%3Bb%26gt%3B%26amp%3B",
    "javascript:x": "./javascript%3Ax",
    "http:": "./http%3A",
    "?zip": "./%3Fzip",
    "a?b#c;d": "./a%3Fb%23c%3Bd",
    "%2f": "./%252f",
    "two\nlines\r\n": "./two%0Alines%0D%0A",
    "\x1b[31mred\x9b": "./%1B%5B31mred%C2%9B",
    "caf\udce9": "./caf%E9",
    "café": "./caf%C3%A9",
    "\u202etxt.exe": "./%E2%80%AEtxt.exe",
    " ": "./%20",
    "-": "./-",
    "~": "./~",
    "{body}": "./%7Bbody%7D",
}


@pytest.mark.parametrize(("name", "href"), HOSTILE.items(), ids=map(ascii, HOSTILE))
def test_a_hostile_name_is_nothing_but_a_name(name: str, href: str) -> None:
    plain = listing_page(("x",), [file("x"), folder("x")], {}, has_players=True, has_zips=True)
    hostile = listing_page((name,), [file(name), folder(name)], {}, has_players=True, has_zips=True)
    page = Page(hostile)
    # The same tags with the same attributes, and no more of them.
    assert [(tag, set(found)) for tag, found in page.tags] == [
        (tag, set(found)) for tag, found in Page(plain).tags
    ]
    shown = printable(name)
    assert shown.isprintable()
    row_links = [link for link in page.links if "sort=" not in link.href][1:]
    assert [link.href for link in row_links] == [
        "./?zip",
        f"{href}/",
        f"{href}/?zip",
        href,
        f"{href}?download",
    ]
    assert [link.text for link in row_links] == ["Download all", shown, "", shown, ""]
    assert [link.label for link in row_links][2::2] == [f"Zip {shown}", f"Download {shown}"]


@pytest.mark.parametrize("name", HOSTILE, ids=map(ascii, HOSTILE))
def test_links_lead_to_the_bytes_of_the_name(name: str) -> None:
    page = Page(listing_page((), [file(name)], {}))
    url = urlsplit(urljoin("http://host/deep/", page.links[-1].href))
    assert (url.scheme, url.netloc, url.query, url.fragment) == ("http", "host", "", "")
    *before, last = url.path.split("/")
    assert before == ["", "deep"]
    assert unquote_to_bytes(last) == os.fsencode(name)


def test_a_page_needs_nothing_else() -> None:
    page = Page(listing_page((), ENTRIES, {}, has_players=True, has_zips=True))
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"script", "img", "iframe", "object", "form", "base"})
    assert page.find("link") == [{"rel": "icon", "href": "data:,"}]
    assert not any("style" in attributes for _, attributes in page.tags)
    (style,) = (text for text in page.texts if "prefers-color-scheme: dark" in text)
    assert "url(" not in style
    assert "@import" not in style
    assert page.find("meta", name="viewport")
    ids = {found["id"] for _, found in page.tags if "id" in found}
    assert {found["href"].removeprefix("#") for found in page.find("use")} <= ids


# What it tells...


def test_it_shows_sizes_and_times(new_york: None) -> None:
    entries = [file("a", 1_234_567, 1_000_000_000.9), file("b", 1, 1e20), folder("c", -1e20)]
    page = listing_page((), entries, {}).decode()
    assert '<td class="size">1.2 MB</td>' in page
    assert '<time datetime="2001-09-08T20:46:40-05:00">2001-09-08 20:46</time>' in page
    assert page.count("<time") == 1  # no calendar has the other years
    assert "1 folder, 2 files, 1.2 MB" in page


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image"),
        ("a.MP3", "audio"),
        ("a.mkv", "video"),
        ("a.txt", "text"),
        ("a.pdf", "text"),
        ("a.zip", "archive"),
        ("a.tar.gz", "archive"),
        ("a", "file"),
        ("a.exe", "file"),
    ],
)
def test_it_shows_kinds(name: str, kind: str) -> None:
    page = Page(listing_page((), [file(name), folder(name)], {}))
    assert [found["class"] for found in page.find("svg")][1:] == ["folder", kind]


def test_players_and_zips_are_there_where_they_are_understood() -> None:
    entries = [folder("d"), file("a.ogg"), file("b.txt")]

    def actions(*, has_players: bool, has_zips: bool) -> list[str]:
        page = Page(listing_page((), entries, {}, has_players=has_players, has_zips=has_zips))
        return [href for _, href, _ in page.links if re.search(r"\?(?!sort)", href)]

    files = ["./a.ogg?play", "./a.ogg?download", "./b.txt?download"]
    assert actions(has_players=False, has_zips=False) == []
    assert actions(has_players=True, has_zips=False) == files
    assert actions(has_players=False, has_zips=True) == ["./?zip", "./d/?zip"]
    assert actions(has_players=True, has_zips=True) == ["./?zip", "./d/?zip", *files]


def test_an_empty_folder_says_so() -> None:
    page = listing_page(("a",), (), {}, has_zips=True)
    assert b"There is nothing in this folder." in page
    assert b"<table>" not in page
    assert b"?zip" not in page


# Words...


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (999.7, "1.0 kB"),
        (1000, "1.0 kB"),
        (9_949, "9.9 kB"),
        (9_950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1.5e9, "1.5 GB"),
        (2**63, "9.2 EB"),
    ],
)
def test_human_size(size: float, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.5, "1:00"), (754, "12:34"), (3600, "1:00:00")],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_count() -> None:
    assert [count(number, "file") for number in (0, 1, 1234)] == [
        "0 files",
        "1 file",
        "1,234 files",
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("東京 ‌‍", "東京 ‌‍"),
        ("\u00a0\u202f", "\u00a0\u202f"),
        ("\0\t\n\x1b\x7f\x85\x9b", "\ufffd" * 7),
        ("\u2028\u2029\u200e\u202e\u2066\ufeff", "\ufffd" * 6),
        ("\udc80\udcff", "\ufffd" * 2),
    ],
)
def test_printable(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert "\n" not in shown
