"""A certificate: a server that starts while there is one serves HTTPS in place of HTTP."""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARIABLE = "BENCHMARK_CERTIFICATE"


@contextmanager
def provided() -> Iterator[None]:
    """Make one for 127.0.0.1, for the servers that start in the block."""
    import trustme  # only servers without TLS do without it

    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        path = Path(folder, "certificate.pem")
        trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
        os.environ[_VARIABLE] = str(path)
        try:
            yield
        finally:
            del os.environ[_VARIABLE]


@contextmanager
def hidden() -> Iterator[None]:
    """Have the servers that start in the block serve HTTP."""
    path = os.environ.pop(_VARIABLE)
    try:
        yield
    finally:
        os.environ[_VARIABLE] = path


def path() -> str | None:
    """Where it is, with its key, as PEM; `None` to serve HTTP."""
    return os.environ.get(_VARIABLE)


def server_context() -> ssl.SSLContext | None:
    """For a server, as Python recommends; `None` to serve HTTP."""
    if (file := path()) is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    return context


def client_context() -> ssl.SSLContext:
    """For a client, which takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
