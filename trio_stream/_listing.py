"""A directory as a page: what is in it, sorted, with links."""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING

from ._media import content_type
from ._page import breadcrumbs, is_playable, link_to, make_page, text_of, time_of
from ._wording import count, human_size, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._tree import Entry

# What can be sorted by, its heading, and the order that a first click on that gives.
_COLUMNS = {
    "name": ("Name", "ascending"),
    "size": ("Size", "descending"),
    "time": ("Modified", "descending"),
}
_OTHER_ORDER = {"ascending": "descending", "descending": "ascending"}

_ARROWS = {
    "ascending": "\N{BLACK UP-POINTING SMALL TRIANGLE}",
    "descending": "\N{BLACK DOWN-POINTING SMALL TRIANGLE}",
}

# By the first part of the media type, or all of it.
_KINDS = {
    "image": "image",
    "audio": "audio",
    "video": "video",
    "text": "text",
    "application/pdf": "text",
    "application/json": "text",
    "application/gzip": "archive",
    "application/x-7z-compressed": "archive",
    "application/x-bzip2": "archive",
    "application/x-rar-compressed": "archive",
    "application/x-tar": "archive",
    "application/x-xz": "archive",
    "application/zip": "archive",
}

_SYMBOLS = {
    "folder": '<path fill="currentColor" fill-opacity=".25" d="M3 7a2 2 0 0 1 2-2h4.5L11.5 7.5H19'
    'a2 2 0 0 1 2 2V17a2 2 0 0 1-2 2H5a2 2 0 0 1-2-2z"/>',
    "file": '<path d="M13.5 3H7a2 2 0 0 0-2 2v14a2 2 0 0 0 2 2h10a2 2 0 0 0 2-2V8.5zM13 3v6h6"/>',
    "text": '<use href="#file"/><path d="M8.5 13h7M8.5 16.5h5"/>',
    "image": '<rect x="3" y="4" width="18" height="16" rx="2"/><circle cx="8.5" cy="9.5" r="1.5"/>'
    '<path d="m4 18 5-4.5 3 2.5 4-4 4.5 4"/>',
    "audio": '<circle cx="7" cy="17.5" r="2.5"/><circle cx="17" cy="15.5" r="2.5"/>'
    '<path d="M9.5 17.5V6.5l10-2v11"/>',
    "video": '<rect x="3" y="5" width="18" height="14" rx="2"/><path d="m10 9 5 3-5 3z"/>',
    "archive": '<rect x="4" y="3" width="16" height="18" rx="2"/>'
    '<path d="M12 3v2m0 2v2m0 2v2"/><rect x="10" y="14" width="4" height="4" rx="1"/>',
    "play": '<path d="m7 5 12 7-12 7z"/>',
    "save": '<path d="M12 4v11m-4.5-4.5L12 15l4.5-4.5M5 20h14"/>',
}

_STYLE = """
  table { width: 100%; border-collapse: collapse; }
  th { padding: .5rem .75rem; text-align: start; font-size: .8125rem; font-weight: 600;
       background: var(--paper); border-block: 1px solid var(--line); }
  th a { color: var(--muted); text-decoration: none; white-space: nowrap; }
  th a:hover, th[aria-sort] a { color: var(--text); }
  td { padding: .5rem .75rem; border-top: 1px solid var(--line); color: var(--muted); }
  tbody tr:first-child td { border-top: 0; }
  tbody tr:hover { background: var(--hover); }
  td.icon { width: 2.25rem; padding-inline: 1.5rem 0; }
  td.name { position: relative; }
  td.name a { color: var(--text); text-decoration: none; }
  td.name a:hover { text-decoration: underline; }
  td.name a::after { content: ""; position: absolute; inset: 0; }
  .size, .time { white-space: nowrap; font-variant-numeric: tabular-nums; }
  .size { text-align: end; }
  .actions { width: 1px; padding-block: 0; padding-inline-end: 1rem; text-align: end;
             white-space: nowrap; }
  .actions a { position: relative; display: inline-block; padding: .5rem; vertical-align: middle; }
  .actions svg { width: 1.25rem; height: 1.25rem; }
  .folder { color: var(--folder); } .image { color: var(--image); } .audio { color: var(--audio); }
  .video { color: var(--video); } .archive { color: var(--archive); }
  .empty { padding: 2rem 1.5rem; border-top: 1px solid var(--line); margin: 0; }
  .symbols { display: none; }
  @media (max-width: 40rem) {
    header { padding: 1rem; }
    thead tr { display: flex; padding-inline: .25rem; background: var(--paper);
               border-block: 1px solid var(--line); }
    th { border: 0; text-align: start; }
    th.icon, th.actions { display: none; }
    tbody tr { position: relative; display: grid; align-items: center; column-gap: .75rem;
               grid-template: "icon name actions" auto "icon facts actions" auto / auto 1fr auto;
               padding: .625rem 1rem; border-top: 1px solid var(--line); }
    tbody tr:first-child { border-top: 0; }
    tbody td { padding: 0; border: 0; width: auto; }
    tbody td.icon { grid-area: icon; width: auto; padding: 0; }
    td.name { grid-area: name; position: static; }
    tbody td.actions { grid-area: actions; width: auto; padding: 0; margin-inline-end: -.5rem; }
    td.size, td.time { grid-row: 2; font-size: .8125rem; }
    td.size { grid-column: 2; justify-self: start; }
    td.time { grid-column: 2; justify-self: start; margin-inline-start: 5.5rem; }
    .folder-row td.time { margin-inline-start: 0; }
  }
"""


def listing_page(
    names: Sequence[str],
    entries: Sequence[Entry],
    query: Mapping[str, str],
    *,
    root: str = "Files",
    has_players: bool = False,
    has_zips: bool = False,
) -> bytes:
    """A page of a directory.

    Args:
      names: Those of the directories that lead to it from the root.
      entries: What is in it, in any order.
      query: `sort` (`name`, `size` or `time`) and `order` (`ascending` or `descending`); whatever
        else there is counts for nothing.
      root: What the root is called.
      has_players: Whether files understand `?play` and `?download`.
      has_zips: Whether directories understand `?zip`.
    """
    sort = query.get("sort", "name")
    if sort not in _COLUMNS:
        sort = "name"
    order = query.get("order", "ascending")
    if order not in _OTHER_ORDER:
        order = "ascending"
    title = [root, *names][-1]
    body = [_symbols(), "<header><div>"]
    if names:
        body.append(breadcrumbs(names[:-1], root, depth=1))
    body.append(f"<h1>{text_of(title)}</h1><p>{_summary(entries)}</p></div>")
    if has_zips and entries:
        body.append('<a class="button" href="./?zip">Download all</a>')
    body.append("</header>")
    if entries:
        body += ["<table>", _heading(sort, order), "<tbody>"]
        body += [
            _row(entry, has_players=has_players, has_zips=has_zips)
            for entry in sort_entries(entries, sort, order)
        ]
        body.append("</tbody></table>")
    else:
        body.append('<p class="empty">There is nothing in this folder.</p>')
    return make_page(title, _STYLE, "\n".join(body))


def sort_entries(entries: Sequence[Entry], sort: str, order: str) -> list[Entry]:
    """Directories first, then by `sort`; what is equal there, by name."""
    found = sorted(entries, key=lambda entry: _name_key(entry.name))
    is_reversed = order == "descending"
    if sort == "size":
        found.sort(key=lambda entry: entry.size, reverse=is_reversed)
    elif sort == "time":
        found.sort(key=lambda entry: entry.modified, reverse=is_reversed)
    elif is_reversed:
        found.reverse()
    return sorted(found, key=lambda entry: not entry.is_directory)


def _name_key(name: str) -> tuple[list[tuple[int, str]], str]:
    """As people sort: in any case, and `track 9` before `track 10`."""
    parts = re.split(r"([0-9]+)", name.casefold())
    key = [
        (len(digits := part.lstrip("0")), digits) if index % 2 else (0, part)
        for index, part in enumerate(parts)
    ]
    return key, name


def _summary(entries: Sequence[Entry]) -> str:
    folders = sum(entry.is_directory for entry in entries)
    facts = [count(folders, "folder")] if folders else []
    if files := len(entries) - folders:
        facts += [count(files, "file"), human_size(sum(entry.size for entry in entries))]
    return ", ".join(facts)


def _heading(sort: str, order: str) -> str:
    cells = []
    for column, (heading, first_order) in _COLUMNS.items():
        is_sorted = column == sort
        next_order = _OTHER_ORDER[order] if is_sorted else first_order
        state, arrow = "", ""
        if is_sorted:
            state, arrow = f' aria-sort="{order}"', f" {_ARROWS[order]}"
        cells.append(
            f'<th class="{column}"{state}>'
            f'<a href="./?sort={column}&amp;order={next_order}">{heading}{arrow}</a></th>'
        )
    return (
        f'<thead><tr><th class="icon"></th>{"".join(cells)}<th class="actions"></th></tr></thead>'
    )


def _row(entry: Entry, *, has_players: bool, has_zips: bool) -> str:
    link = link_to(entry.name, is_directory=entry.is_directory)
    kind = _kind(entry)
    size = "" if entry.is_directory else human_size(entry.size)
    actions = ""
    if has_players and is_playable(entry.name):
        actions += _action(link, "play", entry.name)
    if has_zips if entry.is_directory else has_players:
        actions += _action(link, "zip" if entry.is_directory else "download", entry.name)
    return (
        f'<tr class="{"folder-row" if entry.is_directory else "file-row"}">'
        f'<td class="icon">{_icon(kind, kind)}</td>'
        f'<td class="name"><a href="{link}">{text_of(entry.name)}</a></td>'
        f'<td class="size">{size}</td><td class="time">{time_of(entry)}</td>'
        f'<td class="actions">{actions}</td></tr>'
    )


def _action(link: str, action: str, name: str) -> str:
    label = escape(f"{action.capitalize()} {printable(name)}")
    icon = _icon("play" if action == "play" else "save")
    return f'<a href="{link}?{action}" title="{label}" aria-label="{label}">{icon}</a>'


def _kind(entry: Entry) -> str:
    if entry.is_directory:
        return "folder"
    media_type = content_type(entry.name).partition(";")[0]
    return _KINDS.get(media_type) or _KINDS.get(media_type.partition("/")[0], "file")


def _icon(symbol: str, class_: str = "") -> str:
    return f'<svg class="{class_}" viewBox="0 0 24 24"><use href="#{symbol}"/></svg>'


def _symbols() -> str:
    symbols = "".join(f'<g id="{name}">{paths}</g>' for name, paths in _SYMBOLS.items())
    return f'<svg class="symbols"><defs>{symbols}</defs></svg>'
