"""What has header fields and a body, and the ways to read that body whole."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict, CIMultiDictProxy

from ._bad_request import BadRequestError
from ._content_type import decode_text, parse_content_type

if TYPE_CHECKING:
    from collections.abc import Iterable

    import trio


class Message(ABC):
    """A request, or one part of a form.

    All that a client got wrong is a `BadRequestError`, which answers for a handler that lets it
    pass.

    Attributes:
      body: What has not been read of the body.
    """

    body: trio.abc.ReceiveStream

    def __init__(self, max_body_size: int) -> None:
        self._max_body_size = max_body_size

    @property
    @abstractmethod
    def headers(self) -> CIMultiDictProxy[str]:
        """The header fields: names in any case."""

    @property
    def content_type(self) -> str:
        """The media type in `Content-Type`, in lower case, without parameters; `""` if none."""
        return self._content_type()[0]

    async def read(self, max_bytes: int | None = None) -> bytes:
        """Read what is left of the body.

        Args:
          max_bytes: The most that is taken; `None` for `Config.max_body_size`.

        Raises:
          BadRequestError: 413: the body is larger. Or as `body.receive_some`: 400, 408 or 431.
          ValueError: `max_bytes` is not a number of bytes.
        """
        limit = self._limit(max_bytes)
        pieces = []
        size = 0
        async for data in self.body:
            pieces.append(data)
            size += len(data)
            if size > limit:
                raise too_large(limit)
        return b"".join(pieces)

    async def text(self, max_bytes: int | None = None) -> str:
        """Read what is left of the body, in the charset that `Content-Type` names, else UTF-8.

        Raises:
          BadRequestError: As `read`; 400: the body is not in that charset. 415: nobody knows it.
        """
        data = await self.read(max_bytes)
        return decode_text(data, self._content_type()[1].get("charset", "utf-8"))

    async def json(self, max_bytes: int | None = None) -> Any:  # noqa: ANN401
        """Read what is left of the body as JSON, whatever `Content-Type` says.

        That is JSON as RFC 8259 has it: in UTF-8, and without `NaN`.

        Raises:
          BadRequestError: As `read`; 400: it is not JSON.
        """
        data = await self.read(max_bytes)
        try:
            return json.loads(data.decode("utf-8-sig"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as exc:
            raise BadRequestError(f"the body is not JSON: {exc}", 400) from None

    def _limit(self, max_bytes: object) -> int:
        if max_bytes is None:
            return self._max_body_size
        if not isinstance(max_bytes, int) or max_bytes < 0:
            raise ValueError(f"max_bytes must be a number of bytes, or None, not {max_bytes!r}")
        return max_bytes

    def _content_type(self) -> tuple[str, dict[str, str]]:
        return parse_content_type(self.headers.get("Content-Type", ""))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is none of its numbers")


def too_large(limit: int) -> BadRequestError:
    """The refusal of a body of more than `limit` bytes."""
    return BadRequestError(f"the body is larger than {limit} bytes", 413)


def decode_fields(raw: Iterable[tuple[bytes, bytes]]) -> CIMultiDictProxy[str]:
    """Header fields as a mapping: values as ISO-8859-1 (RFC 9110 section 5.5)."""
    fields = CIMultiDict[str]()
    for name, value in raw:
        fields.add(name.decode("ascii"), value.decode("latin-1"))
    return CIMultiDictProxy(fields)
