"""Files to serve, and answers with them, taken apart."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from trio_stream._file import FilePart, open_variants
from trio_stream._file_answer import FileOptions, answer_file
from trio_stream._request_head import Fields, RequestHead

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from trio_stream._file import OpenVariant

MODIFIED_NS = 1_700_000_000_123_456_789  # long over, so that the validators are strong


def make_file(path: Path, data: bytes, *, modified_ns: int = MODIFIED_NS) -> Path:
    """Write `path`, as of some time ago."""
    path.write_bytes(data)
    os.utime(path, ns=(modified_ns, modified_ns))
    return path


class Answered(NamedTuple):
    """What a client gets of a file.

    Attributes:
      length: What `Content-Length` says.
    """

    status: int
    fields: dict[str, str]
    length: int
    body: bytes


def ask(
    file: Path | OpenVariant,
    headers: Iterable[tuple[str, str]] = (),
    *,
    method: str = "GET",
    status: int = 200,
    options: FileOptions | None = None,
) -> Answered:
    """What answers a request, without any connection."""
    raw = [(b"Host", b"x")]
    raw += [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]
    request = RequestHead(method.encode("ascii"), b"/", b"1.1", Fields(b"", lambda: raw))
    open_variant = file if callable(file) else open_variants(file)
    answer = answer_file(open_variant, options or FileOptions(), request, status)
    with answer.file:
        body = b"".join(
            os.pread(piece.file.fd, len(piece), piece.start)
            if isinstance(piece, FilePart)
            else piece
            for piece in answer.pieces
        )
    return Answered(answer.status, answer.fields, answer.length, body)


class Part(NamedTuple):
    """One part of a multipart body."""

    content_type: str
    content_range: str
    data: bytes


def take_apart(content_type: str, body: bytes) -> list[Part]:
    """The parts of a multipart body: every byte of it must be in its place."""
    media_type, boundary = content_type.split("; boundary=")
    assert media_type == "multipart/byteranges"
    delimiter = f"\r\n--{boundary}".encode()
    before, *sections, end = (b"\r\n" + body).split(delimiter)
    assert (before, end) == (b"", b"--\r\n")
    parts = []
    for section in sections:
        head, _, data = section.partition(b"\r\n\r\n")
        match = re.fullmatch(r"\r\nContent-Type: (.*)\r\nContent-Range: (.*)", head.decode())
        assert match is not None, head
        parts.append(Part(match[1], match[2], data))
    return parts


def sent_parts(answered: Answered) -> list[tuple[str, bytes]]:
    """`Content-Range` and bytes of each part of a 206."""
    assert answered.status == 206
    if "Content-Range" in answered.fields:
        return [(answered.fields["Content-Range"], answered.body)]
    parts = take_apart(answered.fields["Content-Type"], answered.body)
    assert len(parts) > 1
    return [(part.content_range, part.data) for part in parts]
