"""The head of a response, collected field by field and checked before any of it is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus

from ._grammar import TOKEN

# RFC 9110 sections 5.1 and 5.5; RFC 9112 section 4, where obs-text is left out.
_FIELD_NAME = re.compile(TOKEN)
_FIELD_VALUE = re.compile(
    rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
)
_STATUS = re.compile(r"([2-5][0-9]{2})(?: ([\t\x20-\x7e]*))?")

_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",  # RFC 9110 has other names for these than Python before 3.13
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}

# What the server writes itself, because it knows better.
_OWN_FIELDS = frozenset({"content-length", "date", "transfer-encoding"})

# What a recipient needs before the body (RFC 9110 section 6.5.1).
_NO_TRAILERS = _OWN_FIELDS | {
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-range",
    "content-type",
    "host",
    "location",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}


class ResponseHead:
    """Status line and header fields, as far as the handler gives them.

    Attributes:
      status: The status code.
      reason: The reason phrase.
      fields: Names and values, in order.
    """

    __slots__ = ("fields", "reason", "status")

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.reason = _PHRASES.get(status, "").encode("ascii")
        self.fields: list[tuple[bytes, bytes]] = []

    def write_status(self, status: int | str) -> None:
        """As `Response.write_status`."""
        match = _STATUS.fullmatch(str(status))
        if match is None:
            raise ValueError(
                "a status is a number from 200 to 599, alone or with a phrase in printable ASCII, "
                f"not {status!r}"
            )
        code, phrase = match.groups()
        self.status = int(code)
        self.reason = (_PHRASES.get(self.status, "") if phrase is None else phrase).encode("ascii")

    def copy(self) -> ResponseHead:
        """The same once more, to be changed on its own."""
        head = ResponseHead()
        head.status, head.reason, head.fields = self.status, self.reason, self.fields.copy()
        return head

    def get_header(self, name: str) -> str | None:
        """The value of the first field of that name, in any case; `None` if there is none."""
        wanted = name.lower().encode("ascii")
        values = (value for field, value in self.fields if field.lower() == wanted)
        return next((value.decode("latin-1") for value in values), None)

    def remove_header(self, name: str) -> None:
        """Remove all fields of that name, in any case."""
        unwanted = name.lower().encode("ascii")
        self.fields = [item for item in self.fields if item[0].lower() != unwanted]

    def write_header(self, name: str, value: str | bytes | int) -> None:
        """As `Response.write_header`."""
        _check_name(name)
        if name.lower() in _OWN_FIELDS:
            hint = ": give a total_size instead" if name.lower() == "content-length" else ""
            raise ValueError(f"{name} is written by the server{hint}")
        self.fields.append((name.encode("ascii"), _raw_value(name, value)))


def status_text(status: int) -> str:
    """The body of an answer that only says what `status` says."""
    return f"{_PHRASES.get(status) or status}\n"


def trailer_fields(trailers: Mapping[str, str | bytes | int]) -> list[tuple[bytes, bytes]]:
    """Names and values of the fields that follow a body.

    Raises:
      ValueError, TypeError: As `Response.write_header`; or the field has a meaning only before the
        body.
    """
    if not isinstance(trailers, Mapping):
        raise TypeError(f"trailers must be a mapping, not {trailers!r}")
    fields = []
    for name, value in trailers.items():
        _check_name(name)
        if name.lower() in _NO_TRAILERS:
            raise ValueError(f"{name} has a meaning only before the body: it can't be a trailer")
        fields.append((name.encode("ascii"), _raw_value(name, value)))
    return fields


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the name of a header field is text, not {name!r}")
    if not _FIELD_NAME.fullmatch(name):
        raise ValueError(f"{name!r} can't be the name of a header field")


def _raw_value(name: str, value: str | bytes | int) -> bytes:
    if not isinstance(value, str | bytes | int):
        raise TypeError(f"{name}: the value must be str, bytes or int, not {value!r}")
    try:
        raw = value if isinstance(value, bytes) else str(value).encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(
            f"{name}: {value!r} is not ISO-8859-1; percent-encode it, or pass bytes"
        ) from None
    if not _FIELD_VALUE.fullmatch(raw):
        raise ValueError(f"{name}: {value!r} can't be the value of a header field")
    return raw
