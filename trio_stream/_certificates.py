"""The certificates that a server shows: from files, by name, and loaded again while it serves."""

from __future__ import annotations

import logging
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._file import StrPath

logger = logging.getLogger("trio_stream")

_PEM_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\s.*?-----END CERTIFICATE-----", re.DOTALL
)

# DER (X.690) as a certificate has it: RFC 5280 sections 4.1 and 4.2.1.6.
_EXTENSIONS = 0xA3
_DNS_NAME = 0x82
_SUBJECT_ALT_NAME = bytes.fromhex("0603551d11")


class Certificates:
    """What a server shows to its clients, and asks of them, from PEM files.

    TLS 1.2 and later, HTTP/1.1 by ALPN (RFC 7301), and else the defaults of Python's `ssl`. Of
    several certificates, a client gets the first that matches the name it asks for (SNI, RFC 6066
    section 3), or else the first.

    Args:
      *files: For each certificate its file (with the chain that leads to a root) and that of its
        private key: `("cert.pem", "key.pem")`; `None` for the key if it is in the same file.
      password: Of the keys that are encrypted.
      ca_certs: PEM: clients must show a certificate that leads to one of these.

    Attributes:
      context: Made of the files when they were last loaded.

    Raises:
      OSError: A file can't be read.
      ValueError: No certificate is given, or a file is not what it should be; the message says
        which.
      TypeError: A certificate is not given as a pair.
    """

    def __init__(
        self,
        *files: tuple[StrPath, StrPath | None],
        password: str | None = None,
        ca_certs: StrPath | None = None,
    ) -> None:
        if not files:
            raise ValueError("a TLS server needs at least one certificate")
        for pair in files:
            match pair:
                case (_, _):
                    pass
                case _:
                    raise TypeError(
                        f'each certificate is a pair, such as ("cert.pem", "key.pem"), not {pair!r}'
                    )
        self._files = files
        self._password = password
        self._ca_certs = ca_certs
        self.context = self._load()

    def reload(self) -> bool:
        """Load the files again, for the connections to come; those there are go on as they are.

        If a file is missing or broken that is logged, and nothing changes.

        Returns:
          Whether all of them were loaded.
        """
        try:
            self.context = self._load()
        except (OSError, ValueError) as exc:
            logger.error("the certificates stay as they are: %s", exc)
            return False
        logger.info("the certificates were loaded again")
        return True

    def _load(self) -> ssl.SSLContext:
        contexts = [self._make_context(*pair) for pair in self._files]
        by_name: dict[str, ssl.SSLContext] = {}
        for (certfile, _), context in zip(self._files, contexts, strict=True):
            for name in _names(certfile):
                by_name.setdefault(name, context)

        def choose(
            connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext
        ) -> None:
            wanted = (name or "").lower()
            domain = wanted.partition(".")[2]
            chosen = by_name.get(wanted) or by_name.get(f"*.{domain}")  # RFC 9525 section 6.3
            if chosen is not None:
                connection.context = chosen

        if len(contexts) > 1:
            contexts[0].sni_callback = choose
        return contexts[0]

    def _make_context(self, certfile: StrPath, keyfile: StrPath | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        # `ssl` does not say which file it is that can't be read.
        for file in (certfile, keyfile, self._ca_certs):
            if file is not None:
                Path(file).read_bytes()
        key = f"the key in {str(certfile if keyfile is None else keyfile)!r}"

        def ask_password() -> str:
            if self._password is None:
                raise ValueError(f"{key} is encrypted: a password is needed")
            return self._password

        try:
            context.load_cert_chain(certfile, keyfile, ask_password)
        except ssl.SSLError as exc:
            raise ValueError(
                f"{str(certfile)!r} and {key} are not a certificate and its key in PEM"
                f"{', or the password is wrong' if self._password is not None else ''}: {exc}"
            ) from exc
        if self._ca_certs is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._ca_certs)
            except ssl.SSLError as exc:
                raise ValueError(
                    f"{str(self._ca_certs)!r} has no certificates in PEM: {exc}"
                ) from exc
        return context


def current_context(source: ssl.SSLContext | Certificates) -> ssl.SSLContext:
    """The context for a new connection."""
    return source.context if isinstance(source, Certificates) else source


def check_context(source: ssl.SSLContext | Certificates | None) -> None:
    """Check that there is none, or it is for servers.

    Raises:
      ValueError: It is for clients.
      TypeError: It is something else.
    """
    if not (source is None or isinstance(source, ssl.SSLContext | Certificates)):
        raise TypeError(f"ssl_context must be Certificates, or an ssl.SSLContext, not {source!r}")
    if isinstance(source, ssl.SSLContext) and source.protocol is ssl.PROTOCOL_TLS_CLIENT:
        raise ValueError("ssl_context must be one for servers: ssl.PROTOCOL_TLS_SERVER")


# The names in a certificate, which `ssl` tells only of those of a peer...


def _names(certfile: StrPath) -> Sequence[str]:
    """The DNS names that the first certificate of a file is for, in lower case."""
    first = _PEM_CERTIFICATE.search(Path(certfile).read_text("ascii", "replace"))
    if first is None:
        return ()  # it is in another form of PEM, and must be the one for all names
    ((_, certificate),) = _der_items(ssl.PEM_cert_to_DER_cert(first[0]))
    (_, to_be_signed), *_ = _der_items(certificate)
    for tag, wrapped in _der_items(to_be_signed):
        if tag == _EXTENSIONS:
            ((_, extensions),) = _der_items(wrapped)
            for _, extension in _der_items(extensions):
                if extension.startswith(_SUBJECT_ALT_NAME):
                    *_, (_, value) = _der_items(extension)
                    ((_, names),) = _der_items(value)
                    return [
                        name.decode("ascii").lower()
                        for kind, name in _der_items(names)
                        if kind == _DNS_NAME
                    ]
    return ()


def _der_items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The tags and contents in well-formed DER, all of whose tags are one byte."""
    position = 0
    while position < len(data):
        tag, size = data[position : position + 2]
        position += 2
        if size & 0x80:
            size_of_size = size & 0x7F
            size = int.from_bytes(data[position : position + size_of_size], "big")
            position += size_of_size
        yield tag, data[position : position + size]
        position += size
