"""Connections of proxies that begin with the PROXY protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ._addresses import is_trusted
from ._proxy_protocol import ProxyHeader, ProxyProtocolError, parse_header
from ._socket_transport import peek_some

if TYPE_CHECKING:
    from ._config import Config
    from ._timeouts import TimeLimit


async def receive_header(
    stream: trio.SocketStream, peer: object, config: Config, limit: TimeLimit
) -> ProxyHeader:
    """Receive who a connection of `peer` comes from, and no byte more.

    What follows stays in the socket, as if the client had connected to it. `limit` ends it if it
    takes too long.

    Raises:
      ProxyProtocolError: The peer is not trusted, or it does not tell in time, or as it should.
      trio.BrokenResourceError: The connection was reset, or nothing came.
    """
    if not is_trusted(peer, config.trusted_proxies):
        raise ProxyProtocolError("it is not a trusted proxy")
    with limit() as scope:
        header = await _receive_header(stream)
    if scope.cancelled_caught:
        raise ProxyProtocolError("no header in time")
    return header


async def _receive_header(stream: trio.SocketStream) -> ProxyHeader:
    received = b""
    while data := await peek_some(stream):
        header = parse_header(received + data)
        # As long as the header is not complete, all that has come belongs to it.
        size = len(data) if header is None else header.size - len(received)
        with trio.CancelScope(shield=True):  # it is here, and so it has come in time
            received += await stream.receive_some(size)
        if header is not None:
            return header
    if not received:  # many a probe does no more than to connect
        raise trio.BrokenResourceError("it ended before its header began")
    raise ProxyProtocolError("it ended before its header did")
