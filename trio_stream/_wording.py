"""Names, sizes and times as people read them."""

from __future__ import annotations

import unicodedata

# The joiners are control characters, too, but emoji and several scripts are made with them.
_JOINERS = "\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
_NOT_SHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def printable(text: str) -> str:
    """Text that stays on its line and does nothing to a terminal or to the text around it.

    What could, and bytes of a file's name that are not UTF-8, becomes U+FFFD.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(character) in _NOT_SHOWN and character not in _JOINERS
        else character
        for character in text
    )


def human_size(size: float) -> str:
    """A number of bytes in two or three digits: `"1.4 MB"`."""
    if size < 999.5:
        return "1 byte" if size == 1 else f"{size:.0f} bytes"
    units = iter(("kB", "MB", "GB", "TB", "PB", "EB"))
    unit = ""
    while size >= 999.5:
        size, unit = size / 1000, next(units)
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"


def human_duration(seconds: float) -> str:
    """A time span to the second: `"4 s"`, `"2:05"`, `"1:00:00"`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def count(number: int, noun: str) -> str:
    """A number of things: `"1 file"`, `"2 files"`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
