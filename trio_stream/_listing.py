"""A folder as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ._tree import Entry


def listing_page(names: Sequence[str], entries: Sequence[Entry], query: Mapping[str, str]) -> bytes:
    """Placeholder until the page lands."""
    raise NotImplementedError
