"""What the grammars of header fields have in common (RFC 9110 section 5.6)."""

from __future__ import annotations

import re

TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 (of a grammar)
"""A regular expression (section 5.6.2)."""


def unescape(quoted: str) -> str:
    """The value of a quoted string, from what is between its quotes (section 5.6.4)."""
    return re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
