"""The access log: one record for each response when it is over, and two ways to write it as a line.

The logger is `trio_stream.access`, the level INFO. All facts are attributes of the record; while
nobody wants them, nothing is computed.
"""

from __future__ import annotations

import json
import logging
import re
import time
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._request_head import RequestHead
    from ._response import Response

logger = logging.getLogger("trio_stream.access")

_MESSAGE = "%(client)s: %(method)s %(target)s: %(status)s, %(ended)s (request %(request_id)s)"

# In the order of the lines.
_FACTS = (
    *("client", "method", "target", "http_version", "status", "body_bytes", "duration"),
    *("parks", "ended", "request_id", "referer", "user_agent"),
)

_HEADERS = {b"referer": "referer", b"user-agent": "user_agent"}

# Not by `strftime`, whose names of months depend on the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What could end a field or a line, or move a terminal's cursor.
_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_UNSAFE_WORD = re.compile(r"[^!#-\[\]-~]")


def log_response(
    response: Response,
    head: RequestHead | None,
    *,
    client: object,
    request_id: str,
    duration: float,
) -> None:
    """Log a response that is over.

    Args:
      response: What was sent, and how it ended.
      head: The head of its request; `None` if that could not be read.
      client: Its address, as `Request.client`.
      request_id: As `Request.id`.
      duration: In seconds, from the request's head to the end of the response.
    """
    reason = response.abort_reason
    facts: dict[str, object] = {
        "client": _name_client(client),
        "method": None,
        "target": None,
        "http_version": None,
        "status": response._head.status if response._head_started else None,
        "body_bytes": response.get_write_offset(),
        "duration": duration,
        "parks": response._parks,
        "ended": "done" if reason is None else reason.name.lower(),
        "request_id": request_id,
        "referer": None,
        "user_agent": None,
    }
    if head is not None:
        facts["method"] = head.method.decode("ascii")
        facts["target"] = head.target.decode("ascii")
        facts["http_version"] = head.http_version.decode("ascii")
        for name, value in head.fields.items:
            if len(name) in (7, 10) and (fact := _HEADERS.get(name.lower())) is not None:
                facts[fact] = value.decode("latin-1")
    # Two thirds of the cost of `logger.info(extra=facts)`, which looks for its caller.
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, _MESSAGE, (facts,), None)
    vars(record).update(facts)
    logger.handle(record)


def _name_client(client: object) -> str | None:
    if isinstance(client, tuple):
        return str(client[0])
    return None if client is None else str(client) or "unix:"


class CombinedFormatter(logging.Formatter):
    r"""Lines as Apache and nginx write them in their format `combined`, with four fields more.

    These are the seconds it took, how often it waited for the client, how it ended, and the id of
    the request. What is not known is `-`, a status that was never sent `000`. In what a client
    chooses, quotes, backslashes and all that is not printable ASCII are `\xHH`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record of the access log."""
        facts = vars(record)
        client = _UNSAFE_WORD.sub(_escape, facts["client"] or "-")
        request = "-"
        if facts["method"] is not None:
            target = _UNSAFE.sub(_escape, facts["target"])
            request = f"{facts['method']} {target} HTTP/{facts['http_version']}"
        return (
            f"{client} - - [{_local_time(int(record.created))}] "
            f'"{request}" {facts["status"] or 0:03} {facts["body_bytes"]} '
            f'"{_UNSAFE.sub(_escape, facts["referer"] or "-")}" '
            f'"{_UNSAFE.sub(_escape, facts["user_agent"] or "-")}" '
            f"{facts['duration']:.6f} {facts['parks']} {facts['ended']} {facts['request_id']}"
        )


class JSONFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: the facts by their names, and the time in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for a record of the access log."""
        facts = vars(record)
        milliseconds = int(record.created * 1000) % 1000
        now = f"{_utc(int(record.created))}.{milliseconds:03}Z"
        return json.dumps({"time": now, **{name: facts[name] for name in _FACTS}})


def _escape(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02X}" for byte in match[0].encode("latin-1", "replace"))


@lru_cache(maxsize=1)
def _local_time(second: int) -> str:
    now = time.localtime(second)
    month = _MONTHS[now.tm_mon - 1]
    return time.strftime(f"%d/{month}/%Y:%H:%M:%S %z", now)


@lru_cache(maxsize=1)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
