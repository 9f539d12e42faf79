"""A file as a page: what it is, a player where that fits, and a button that saves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._media import content_type
from ._page import breadcrumbs, is_playable, link_to, make_page, text_of, time_of
from ._wording import human_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._tree import Entry

_STYLE = """
  audio, video { display: block; width: 100%; max-height: 75vh; }
  video { background: #000; }
  audio { padding: 0 1.5rem; }
  footer { display: flex; flex-wrap: wrap; gap: .75rem 1.25rem; align-items: center;
           padding: 1.25rem 1.5rem 1.5rem; }
  @media (max-width: 40rem) {
    header, footer { padding-inline: 1rem; }
    audio { padding: 0 .5rem; }
  }
"""


def file_page(
    directory: Sequence[str], entry: Entry, *, root: str | None = None, autoplay: bool = False
) -> bytes:
    """A page of a file, at a URL beside that of the file itself.

    Args:
      directory: The names of the directories that lead to it from the root.
      entry: The file.
      root: What the root is called; `None` if there is nothing to go back to.
      autoplay: Whether a player shall begin at once, if the browser lets it.
    """
    link = link_to(entry.name)
    body = ["<header><div>"]
    if root is not None:
        body.append(breadcrumbs(directory, root, depth=0))
    facts = ", ".join(filter(None, (human_size(entry.size), time_of(entry))))
    body.append(f"<h1>{text_of(entry.name)}</h1><p>{facts}</p></div></header>")
    if is_playable(entry.name):
        tag = content_type(entry.name).partition("/")[0]
        state = " autoplay" if autoplay else ""
        body.append(f'<{tag} controls playsinline{state} src="{link}"></{tag}>')
    body.append(
        f'<footer><a class="button" href="{link}?download">Download</a>'
        f'<a href="{link}">Open in the browser</a></footer>'
    )
    return make_page(entry.name, _STYLE, "\n".join(body))
