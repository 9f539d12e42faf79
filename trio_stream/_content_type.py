"""What `Content-Type` says of a body: its media type, its parameters, its charset."""

from __future__ import annotations

import re
from encodings import normalize_encoding
from encodings.aliases import aliases

from ._bad_request import BadRequestError
from ._grammar import unescape

# Of RFC 9110 section 5.6.6, but for values without quotes that are no tokens, as some clients write
# boundaries. Not by `email.message`, which takes what only mail has (RFC 2231), and time that grows
# with the square of the length.
_PARAMETER = re.compile(
    r'[ \t]*;[ \t]*(?:([^=;"\t ]+)=(?:"((?:[^"\\]|\\.)*)"|([^;"\t ]*)))?', re.DOTALL
)

# As Python calls them. It knows more, but what a client names must be text, take time that grows
# with its length only, and give nothing that is not Unicode; and of each name that it does not
# know, Python keeps a copy.
_CHARSETS = re.compile(
    r"ascii|latin_1|utf_8(_sig)?|utf_(16|32)(_[bl]e)?|iso8859_([2-9]|1[013-6])"
    r"|cp(437|85[02]|866|874|932|949|125[0-8])|koi8_[ru]|mac_(roman|cyrillic)"
    r"|big5(hkscs)?|gb(2312|k|18030)|(euc|iso2022)_(jp|kr)|shift_jis|tis_620"
)


def parse_content_type(value: str) -> tuple[str, dict[str, str]]:
    """The media type in lower case, and the parameters: names in lower case, of each the first.

    What is malformed ends them.
    """
    media_type = value.partition(";")[0]
    parameters: dict[str, str] = {}
    position = len(media_type)
    while parameter := _PARAMETER.match(value, position):
        name, quoted, bare = parameter.groups()
        if name is not None:
            text = bare if quoted is None else unescape(quoted)
            parameters.setdefault(name.lower(), text)
        position = parameter.end()
    return media_type.strip(" \t").lower(), parameters


def decode_text(data: bytes, charset: str) -> str:
    """Text in a charset as a client names it.

    Raises:
      BadRequestError: 415: nobody knows the charset. 400: the text is not in it.
    """
    codec = normalize_encoding(charset).lower()
    codec = aliases.get(codec, codec)
    if _CHARSETS.fullmatch(codec) is None:
        raise BadRequestError(f"{charset!r} is an unknown charset", 415)
    try:
        return data.decode(codec)
    except ValueError as exc:
        raise BadRequestError(f"the body is not {charset}: {exc}", 400) from None
