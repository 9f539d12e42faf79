"""What a client gets of a file: all of it, parts, or a word that it has it already.

Opening and reading may wait for a disk, so all of it belongs in a worker thread.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ._conditions import Validators
from ._file import FilePart, FileTooShortError, OpenFile, OpenVariant
from ._media import CODINGS, acceptable_codings, content_disposition, content_type
from ._message import decode_fields
from ._ranges import content_range, find_ranges, multipart
from ._response_head import status_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multidict import CIMultiDictProxy

    from ._request_head import RequestHead

# So much of a file leaves with the head, in one system call. For most files, that is all.
_FIRST_READ = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """As the arguments of `Response.send_file`."""

    content_type: str | None = None
    filename: str | None = None
    download: bool = False
    cache_control: str | None = None
    precompressed: bool = False


class FileAnswer(NamedTuple):
    """What answers a request for a file.

    Attributes:
      file: The one that was opened. Whoever takes the answer closes it.
      status: The status code.
      fields: Names and values of the header fields.
      length: That of the body in bytes, as the answer to a GET would have it.
      pieces: The body, in order: bytes, and parts of the file. None for a HEAD.
    """

    file: OpenFile
    status: int
    fields: dict[str, str]
    length: int
    pieces: list[bytes | FilePart]


def answer_file(
    open_variant: OpenVariant, options: FileOptions, request: RequestHead | None, status: int
) -> FileAnswer:
    """Open a file, decide what to answer with, and read the beginning of it.

    Args:
      open_variant: Opens the file.
      options: How to serve it.
      request: Who asks.
      status: What was written before. With another one than 200 the file is no more than the text
        of an answer: nobody can have a version of it, or parts.

    Raises:
      OSError: It can't be opened or read.
      FileTooShortError: It is shorter than its size.
    """
    method = b"GET" if request is None else request.method
    wanted = decode_fields(() if request is None else request.fields.items)
    file = open_variant("")
    name = file.name
    coding = ""
    try:
        if options.precompressed:
            acceptable = acceptable_codings(wanted.getall("Accept-Encoding", ()))
            if (sibling := _open_sibling(open_variant, acceptable)) is not None:
                file.close()
                file, coding = sibling
        fields = _describe(name, coding, options)
        if status == 200 and method in (b"GET", b"HEAD"):
            answer = _select(file, coding, fields, wanted, has_ranges=method == b"GET")
        else:
            answer = FileAnswer(file, status, fields, file.size, [FilePart(file, 0, file.size)])
        pieces = [] if method == b"HEAD" else _with_first_piece_read(answer.pieces)
        return answer._replace(pieces=pieces)
    except BaseException:
        file.close()
        raise


def _open_sibling(open_variant: OpenVariant, codings: Sequence[str]) -> tuple[OpenFile, str] | None:
    for coding in codings:
        with suppress(OSError):
            return open_variant(CODINGS[coding]), coding
    return None


def _describe(name: str, coding: str, options: FileOptions) -> dict[str, str]:
    fields = {"Content-Type": options.content_type or content_type(name)}
    if coding:
        fields["Content-Encoding"] = coding
    if options.precompressed:
        fields["Vary"] = "Accept-Encoding"
    if options.download or options.filename is not None:
        filename = name if options.filename is None else options.filename
        fields["Content-Disposition"] = content_disposition(filename, download=options.download)
    if options.cache_control is not None:
        fields["Cache-Control"] = options.cache_control
    return fields


def _select(
    file: OpenFile,
    coding: str,
    fields: dict[str, str],
    wanted: CIMultiDictProxy[str],
    *,
    has_ranges: bool,
) -> FileAnswer:
    """Choose between the whole, parts of it, and nothing but a status, in the RFC's order.

    Args:
      file: What there is.
      coding: That of its content; `""` if there is none.
      fields: What describes the whole.
      wanted: The fields of the request.
      has_ranges: Whether the method has ranges: only GET has (RFC 9110 section 14.2).
    """
    size = file.size
    validators = Validators(file.modified_ns, size, coding, time.time_ns())
    status = validators.check(wanted)
    if status == 412:
        return _refuse(file, status, {})
    if status == 304:  # RFC 9110 section 15.4.5
        kept = {n: v for n, v in fields.items() if n in ("Cache-Control", "Vary")}
        return FileAnswer(file, status, kept | {"ETag": validators.etag}, 0, [])
    fields |= {
        "ETag": validators.etag,
        "Last-Modified": validators.last_modified,
        "Accept-Ranges": "bytes",
    }
    parts = None
    if has_ranges and "Range" in wanted and validators.allow_range(wanted):
        parts = find_ranges(",".join(wanted.getall("Range")), size)
    if parts == []:
        return _refuse(file, 416, {"Content-Range": content_range(range(0), size)})
    whole = FileAnswer(file, 200, fields, size, [FilePart(file, 0, size)])
    if parts is None:
        return whole
    if len(parts) == 1:
        (part,) = parts
        described = fields | {"Content-Range": content_range(part, size)}
        return FileAnswer(file, 206, described, len(part), [_part_of(file, part)])
    media_type, raw = multipart(parts, size, fields["Content-Type"])
    pieces = [piece if isinstance(piece, bytes) else _part_of(file, piece) for piece in raw]
    length = sum(map(len, pieces))
    if length >= size:  # as for many small parts
        return whole
    return FileAnswer(file, 206, fields | {"Content-Type": media_type}, length, pieces)


def _part_of(file: OpenFile, part: range) -> FilePart:
    return FilePart(file, part.start, part.stop)


def _refuse(file: OpenFile, status: int, fields: dict[str, str]) -> FileAnswer:
    text = status_text(status).encode("ascii")
    fields["Content-Type"] = "text/plain; charset=utf-8"
    return FileAnswer(file, status, fields, len(text), [text])


def _with_first_piece_read(pieces: list[bytes | FilePart]) -> list[bytes | FilePart]:
    """The same pieces with a first one that has been read, if there is anything to read."""
    pieces = [piece for piece in pieces if piece]
    if pieces and isinstance(part := pieces[0], FilePart):
        data = part.file.read(part.start, min(len(part), _FIRST_READ))
        if not data:
            raise FileTooShortError(part)
        rest = part.after(len(data))
        pieces[:1] = [data, rest] if rest else [data]
    return pieces
