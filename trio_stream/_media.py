"""What a file is to a client: its media type, its name, the codings that it comes in."""

from __future__ import annotations

import mimetypes
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from ._grammar import TOKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

OCTETS = "application/octet-stream"

# `mimetypes` takes what is compressed for a coding of what is inside. But it is not undone on the
# way: who asks for an archive wants the archive.
_COMPRESSED = {
    "br": "application/x-brotli",
    "bzip2": "application/x-bzip2",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}

# The best first, as long as the client does not prefer another.
CODINGS = {"zstd": ".zst", "br": ".br", "gzip": ".gz"}

_CODING = re.compile(
    rf"({TOKEN})(?:[\t ]*;[\t ]*q=(0(?:\.\d{{0,3}})?|1(?:\.0{{0,3}})?))?",
    re.IGNORECASE | re.ASCII,
)


def content_type(name: str) -> str:
    """The media type of a file with that name, as far as it says; text is taken for UTF-8."""
    # It takes what it gets for a URL: without the slash, "data:,x.png" would be plain text.
    media_type, coding = mimetypes.guess_type(f"/{name}")
    if coding is not None:
        return _COMPRESSED.get(coding, OCTETS)
    if media_type is None:
        return OCTETS
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type


def content_disposition(filename: str, *, download: bool) -> str:
    """The value of `Content-Disposition` (RFC 6266), for names in any script (RFC 8187)."""
    kind = "attachment" if download else "inline"
    # Only the last part of a path is a name, and control characters are none of it.
    name = re.sub(r"[\x00-\x1f\x7f]", "", re.split(r"[/\\]", filename)[-1])
    if not name:
        return kind
    # For clients that know nothing better, and confuse `%` with its own meaning: RFC 6266 appendix
    # D.
    plain = re.sub(r"[^\x20-\x7e]|[\"%]", "_", name)
    value = f'{kind}; filename="{plain}"'
    if plain == name:
        return value
    raw = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return f"{value}; filename*=UTF-8''{quote(raw, safe='!#$&+-.^_`|~')}"


def acceptable_codings(accept_encoding: Sequence[str]) -> list[str]:
    """Those of `CODINGS` that a client takes, the best first (RFC 9110 section 12.5.3).

    Args:
      accept_encoding: The values of its `Accept-Encoding` fields.
    """
    weights: dict[str, float] = {}
    for element in ",".join(accept_encoding).split(","):
        if match := _CODING.fullmatch(element.strip("\t ")):
            coding = match[1].lower()
            weights["gzip" if coding == "x-gzip" else coding] = float(match[2] or 1)
    codings = {coding: weights.get(coding, weights.get("*", 0)) for coding in CODINGS}
    least = weights.get("identity", weights.get("*", 0))
    found = [coding for coding, weight in codings.items() if weight > 0 and weight >= least]
    return sorted(found, key=lambda coding: -codings[coding])
