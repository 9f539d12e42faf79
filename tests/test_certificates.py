"""Certificates: from files, chosen by name, asked for, and loaded again."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trio
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from trio.testing import memory_stream_pair

from tests.harness import authority, make_client_context
from trio_stream import Certificates
from trio_stream._certificates import _names

if TYPE_CHECKING:
    from pathlib import Path

    import trustme


def issue(directory: Path, *names: str) -> trustme.LeafCert:
    """A certificate in `cert.pem` and its key in `key.pem`."""
    leaf = authority().issue_cert(*names)
    (directory / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
    leaf.private_key_pem.write_to_path(directory / "key.pem")
    return leaf


def issue_both(path: Path, *names: str) -> Path:
    """A certificate and its key in one file."""
    authority().issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(path)
    return path


async def shown_names(certificates: Certificates, name: str | None) -> set[str]:
    """Of the certificate that a client sees which asks for `name`."""
    client, server = memory_stream_pair()
    context = make_client_context(lambda context: setattr(context, "check_hostname", False))
    tls_client = trio.SSLStream(client, context, server_hostname=name)
    tls_server = trio.SSLStream(server, certificates.context, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls_server.do_handshake)
        await tls_client.do_handshake()
    assert tls_client.version() == "TLSv1.3"
    return {value for _, value in tls_client.getpeercert()["subjectAltName"]}


# Loading...


async def test_one_certificate_is_for_all_names(tmp_path: Path) -> None:
    issue(tmp_path, "example.org")
    certificates = Certificates((tmp_path / "cert.pem", tmp_path / "key.pem"))
    for name in ("example.org", "other.example", "127.0.0.1", None):
        assert await shown_names(certificates, name) == {"example.org"}


def test_defaults_are_safe(tmp_path: Path) -> None:
    context = Certificates((issue_both(tmp_path / "both.pem", "a.example"), None)).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_NONE
    assert ssl.OP_NO_RENEGOTIATION in context.options


@pytest.mark.parametrize(
    ("offered", "chosen"), [(["h2", "http/1.1"], "http/1.1"), (["h2"], None), ([], None)]
)
async def test_http_1_1_is_chosen_by_alpn(
    offered: list[str], chosen: str | None, tmp_path: Path
) -> None:
    certificates = Certificates((issue_both(tmp_path / "both.pem", "localhost"), None))
    client, server = memory_stream_pair()
    context = make_client_context(lambda context: context.set_alpn_protocols(offered))
    tls_client = trio.SSLStream(client, context, server_hostname="localhost")
    tls_server = trio.SSLStream(server, certificates.context, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls_server.do_handshake)
        await tls_client.do_handshake()
    assert tls_client.selected_alpn_protocol() == chosen


async def test_password(tmp_path: Path) -> None:
    leaf = issue(tmp_path, "a.example")
    encrypt(leaf, tmp_path / "key.pem", b"secret")
    files = (tmp_path / "cert.pem", tmp_path / "key.pem")
    assert await shown_names(Certificates(files, password="secret"), None) == {"a.example"}
    with pytest.raises(ValueError, match=r"'.*key\.pem' is encrypted: a password is needed"):
        Certificates(files)
    with pytest.raises(ValueError, match=r"key\.pem' are not .* or the password is wrong: "):
        Certificates(files, password="other")


def encrypt(leaf: trustme.LeafCert, path: Path, password: bytes) -> None:
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    encryption = BestAvailableEncryption(password)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


@pytest.mark.parametrize("wrong", ["cert", "key", "ca"])
@pytest.mark.parametrize("how", ["missing", "empty", "garbage", "another"])
def test_wrong_files_are_named(wrong: str, how: str, tmp_path: Path) -> None:
    issue(tmp_path, "a.example")
    authority().cert_pem.write_to_path(tmp_path / "ca.pem")
    file = tmp_path / f"{wrong}.pem"
    if how == "missing":
        file.unlink()
    elif how == "another":
        issue_both(file, "b.example")
    else:
        file.write_text("" if how == "empty" else "-----BEGIN CERTIFICATE-----\nno\n")
    cert, key, ca = (tmp_path / f"{name}.pem" for name in ("cert", "key", "ca"))
    if how == "another" and wrong == "ca":
        Certificates((cert, key), ca_certs=ca)  # who knows
        return
    with pytest.raises(OSError if how == "missing" else ValueError, match=f"{wrong}.pem"):
        Certificates((cert, key), ca_certs=ca)


def test_a_server_needs_a_certificate() -> None:
    with pytest.raises(ValueError, match="at least one certificate"):
        Certificates()


@pytest.mark.parametrize("mistake", ["cert.pem", "ab", ("cert.pem",), ("a", "b", "c")])
def test_certificates_are_pairs(mistake: Any) -> None:  # noqa: ANN401
    with pytest.raises(TypeError) as error:
        Certificates(mistake)
    assert str(error.value) == (
        f'each certificate is a pair, such as ("cert.pem", "key.pem"), not {mistake!r}'
    )


# Several...


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("a.example", {"a.example", "www.a.example"}),
        ("www.a.example", {"a.example", "www.a.example"}),
        ("B.example", {"b.example", "*.b.example"}),
        ("deep.b.example", {"b.example", "*.b.example"}),
        ("too.deep.b.example", {"a.example", "www.a.example"}),
        ("c.example", {"c.example", "b.example"}),
        ("d.example", {"a.example", "www.a.example"}),
        ("*.b.example", {"b.example", "*.b.example"}),
        (None, {"a.example", "www.a.example"}),
    ],
)
async def test_the_first_certificate_for_the_name_is_shown(
    asked: str | None, shown: set[str], tmp_path: Path
) -> None:
    files = (
        issue_both(tmp_path / "a.pem", "a.example", "www.a.example"),
        issue_both(tmp_path / "b.pem", "b.example", "*.b.example"),
        issue_both(tmp_path / "c.pem", "c.example", "b.example"),
    )
    certificates = Certificates(*((file, None) for file in files))
    assert await shown_names(certificates, asked) == shown


def test_names_of_a_certificate(tmp_path: Path) -> None:
    many = [f"host-{number}.example" for number in range(40)]  # their length needs two bytes
    file = issue_both(tmp_path / "many.pem", "127.0.0.1", "me@b.example", "MIXED.example", *many)
    assert set(_names(file)) == {"mixed.example", *many}
    authority().cert_pem.write_to_path(tmp_path / "none.pem")
    assert list(_names(tmp_path / "none.pem")) == []
    (tmp_path / "trusted.pem").write_text("-----BEGIN TRUSTED CERTIFICATE-----\n")
    assert list(_names(tmp_path / "trusted.pem")) == []


# Again...


async def test_reload_shows_the_new_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_stream")
    files = [issue_both(tmp_path / name, f"{name}.old") for name in ("a", "b")]
    certificates = Certificates(*((file, None) for file in files))
    assert await shown_names(certificates, "b.old") == {"b.old"}
    for file in files:
        issue_both(file, f"{file.name}.new")
    assert await shown_names(certificates, "b.old") == {"b.old"}
    assert certificates.reload()
    assert await shown_names(certificates, "b.new") == {"b.new"}
    assert await shown_names(certificates, "b.old") == {"a.new"}
    assert caplog.messages == ["the certificates were loaded again"]


@pytest.mark.parametrize("how", ["missing", "empty", "half"])
async def test_reload_of_a_broken_file_changes_nothing(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    issue(tmp_path, "old.example")
    certificates = Certificates((tmp_path / "cert.pem", tmp_path / "key.pem"))
    issue(tmp_path, "new.example")
    key = tmp_path / "key.pem"
    if how == "missing":
        key.unlink()
    else:
        key.write_bytes(b"" if how == "empty" else key.read_bytes()[:100])
    assert not certificates.reload()
    assert await shown_names(certificates, None) == {"old.example"}
    (message,) = caplog.messages
    assert message.startswith("the certificates stay as they are: ")
    assert "key.pem" in message
    caplog.clear()
