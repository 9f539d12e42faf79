"""The look of the pages that show files, and what they have in common."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from ._media import content_type
from ._wording import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._tree import Entry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_STYLE = """
  :root { --text: #1d2430; --muted: #5b6575; --paper: #f6f7f9; --card: #fff; --link: #0b5fcc;
          --line: #e6e9ee; --hover: #eef4fd; --folder: #3b82f6; --image: #159a6c; --audio: #8b5cf6;
          --video: #e0457b; --archive: #c07a0c; }
  @media (prefers-color-scheme: dark) {
    :root { --text: #e6e9ef; --muted: #9aa4b5; --paper: #14171c; --card: #1e232b; --link: #7db4ff;
            --line: #2b313c; --hover: #262d39; --folder: #6ea8ff; --image: #4cc79a;
            --audio: #b197fc; --video: #f783ac; --archive: #e5ad4f; }
  }
  * { box-sizing: border-box; }
  body { margin: 0; padding: clamp(.75rem, 3vw, 2.5rem); font: 1rem/1.5 system-ui, sans-serif;
         color: var(--text); background: var(--paper); overflow-wrap: anywhere; }
  main { max-width: 60rem; margin: auto; border-radius: 1rem; background: var(--card);
         box-shadow: 0 1px 8px #0003; overflow: hidden; }
  header { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center;
           justify-content: space-between; padding: 1.25rem 1.5rem; }
  nav { color: var(--muted); }
  nav a { text-decoration: none; }
  h1 { margin: 0; font-size: 1.375rem; line-height: 1.3; }
  p { margin: .25rem 0 0; color: var(--muted); }
  a { color: var(--link); }
  a:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; border-radius: .25rem; }
  .button { padding: .5rem 1rem; border-radius: .5rem; background: var(--link); color: var(--card);
            font-weight: 600; text-decoration: none; white-space: nowrap; }
  .button:hover { filter: brightness(1.1); }
  svg { display: block; width: 1.5rem; height: 1.5rem; fill: none; stroke: currentColor;
        stroke-width: 1.75; stroke-linecap: round; stroke-linejoin: round; }
"""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<main>
{body}
</main>
</html>
"""


def make_page(title: str, style: str, body: str) -> bytes:
    """A whole page.

    Args:
      title: Any text.
      style: CSS beside that of all pages.
      body: HTML.
    """
    page = _PAGE.format(title=escape(printable(title)), style=_STYLE + style, body=body)
    return page.encode("utf-8")


def text_of(name: str) -> str:
    """HTML that shows a name, whatever its script, apart from the text around it."""
    return f"<bdi>{escape(printable(name))}</bdi>"


def link_to(name: str, *, is_directory: bool = False) -> str:
    """The relative URL of a thing in the directory of a page.

    `./` makes clear that a colon in the name does not end the scheme of a URL.
    """
    return f"./{quote(os.fsencode(name), safe='')}{'/' if is_directory else ''}"


def breadcrumbs(names: Sequence[str], root: str, *, depth: int) -> str:
    """Links to the root and to the directories below it that lead to a page.

    Args:
      names: Those of the directories.
      root: What the root is called.
      depth: How many levels the page is below the last of them.
    """
    steps = range(depth + len(names), depth - 1, -1)
    links = [
        f'<a href="{"../" * step or "./"}">{text_of(name)}</a>'
        for step, name in zip(steps, [root, *names], strict=True)
    ]
    return f"<nav>{' / '.join(links)}</nav>"


def time_of(entry: Entry) -> str:
    """HTML that shows when a thing was modified, in the time zone of this machine."""
    try:
        time = (_EPOCH + timedelta(seconds=entry.modified)).astimezone()
    except OverflowError:  # a file system can have any number there
        return ""
    return f'<time datetime="{time.isoformat("T", "seconds")}">{time:%Y-%m-%d %H:%M}</time>'


def is_playable(name: str) -> bool:
    """Whether a browser may have a player for it."""
    return content_type(name).startswith(("audio/", "video/"))
