"""The access log: what is known of each response when it is over, and two ways to write it down.

The logger is `trio_stream.access`, the level INFO. All facts are attributes of its records; while
nobody wants them, nothing is computed.
"""

from __future__ import annotations

import json
import logging
import re
import time
from abc import abstractmethod
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

from ._addresses import socket_name

if TYPE_CHECKING:
    from ._request_head import Fields, RequestHead
    from ._stats import AbortReason

logger = logging.getLogger("trio_stream.access")

_MESSAGE = "%(client)s: %(method)s %(target)s: %(status)s, %(ended)s (request %(request_id)s)"

# Not by `strftime`, whose names of months depend on the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What could end a field or a line, or move a terminal's cursor.
_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_SAFE = re.compile(r"[ !#-\[\]-~]*").fullmatch


class Outcome(TypedDict):
    """What is known of a response that is over: the attributes of a record, in the order of lines.

    Attributes:
      client: The address or the name of the client, without its port.
      method: Of the request; `None`, like what follows, if its head could not be read.
      target: The request target, as sent.
      http_version: Two digits with a dot.
      status: `None` if nothing was sent.
      body_bytes: How many bytes of the body were sent.
      duration: In seconds, from the request's head to the end of the response.
      parks: How often it waited for the client.
      ended: `"done"`, or in lower case why it ended early.
      request_id: As `Request.id`.
      referer: The field of the request, if it has one.
      user_agent: The same.
    """

    client: str | None
    method: str | None
    target: str | None
    http_version: str | None
    status: int | None
    body_bytes: int
    duration: float
    parks: int
    ended: str
    request_id: str
    referer: str | None
    user_agent: str | None


class OutcomeHandler(logging.Handler):
    """A handler that takes outcomes as they are. A record costs a third of a small request."""

    @abstractmethod
    def take(self, created: float, outcome: Outcome) -> None:
        """Handle the outcome of a response that was over at a time, in seconds since the epoch."""


def log_response(
    head: RequestHead | None,
    client: object,
    *,
    request_id: str,
    duration: float,
    status: int | None,
    body_bytes: int,
    parks: int,
    abort_reason: AbortReason | None,
) -> None:
    """Log a response that is over.

    Args:
      head: The head of its request; `None` if that could not be read.
      client: As `Request.client`.
      request_id: As in an `Outcome`, like what follows.
      duration: In seconds.
      status: `None` if nothing was sent.
      body_bytes: How many were sent.
      parks: How often it waited for the client.
      abort_reason: Why it ended early; `None` if it did not.
    """
    method = target = http_version = referer = user_agent = None
    if head is not None:
        method = head.method.decode("ascii")
        target = head.target.decode("ascii")
        http_version = head.http_version.decode("ascii")
        referer, user_agent = _referer_and_user_agent(head.fields)
    outcome: Outcome = {
        "client": _name_client(client),
        "method": method,
        "target": target,
        "http_version": http_version,
        "status": status,
        "body_bytes": body_bytes,
        "duration": duration,
        "parks": parks,
        "ended": "done" if abort_reason is None else abort_reason.name.lower(),
        "request_id": request_id,
        "referer": referer,
        "user_agent": user_agent,
    }
    if len(logger.handlers) == 1 and not logger.propagate:
        (handler,) = logger.handlers
        if isinstance(handler, OutcomeHandler) and not (handler.filters or logger.filters):
            handler.take(time.time(), outcome)
            return
    # Two thirds of the cost of `logger.info(extra=outcome)`, which looks for its caller.
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, _MESSAGE, (outcome,), None)
    vars(record).update(outcome)
    logger.handle(record)


def _referer_and_user_agent(fields: Fields) -> tuple[str | None, str | None]:
    """The last `Referer` and `User-Agent` of `fields`, which may be those of many requests."""
    if fields.referer_and_user_agent is None:
        found = {name.lower(): value.decode("latin-1") for name, value in fields.items}
        fields.referer_and_user_agent = found.get(b"referer"), found.get(b"user-agent")
    return fields.referer_and_user_agent


def _name_client(client: object) -> str | None:
    if isinstance(client, tuple):
        return str(client[0])
    return None if client is None else socket_name(client) or "unix:"


def combined_line(created: float, outcome: Outcome) -> str:
    r"""A line as Apache and nginx write it in their format `combined`, with four fields more.

    These are the seconds it took, how often it waited for the client, how it ended, and the id of
    the request. What is not known is `-`, a status that was never sent `000`. In what a client
    chooses, quotes, backslashes and all that is not printable ASCII are `\xHH`.
    """
    method, target, status = outcome["method"], outcome["target"], outcome["status"]
    if target is not None and not _SAFE(target):
        target = _escape(target)
    request = "-" if method is None else f"{method} {target} HTTP/{outcome['http_version']}"
    return (
        f'{_who_and_when(outcome["client"], int(created))} "{request}" '
        f"{'000' if status is None else status} {outcome['body_bytes']} "
        f"{_browser(outcome['referer'], outcome['user_agent'])} "
        f"{outcome['duration']:.6f} {outcome['parks']} {outcome['ended']} {outcome['request_id']}"
    )


# What is the same for many a request is made once.


@lru_cache(maxsize=64)
def _who_and_when(client: str | None, second: int) -> str:
    who = "-" if client is None else _escape(client).replace(" ", r"\x20")
    return f"{who} - - [{_local_time(second)}]"


@lru_cache(maxsize=64)
def _browser(referer: str | None, user_agent: str | None) -> str:
    return f'"{_escape(referer or "-")}" "{_escape(user_agent or "-")}"'


def _escape(text: str) -> str:
    return _UNSAFE.sub(_escape_one, text)


def _escape_one(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02X}" for byte in match[0].encode("latin-1", "replace"))


def json_line(created: float, outcome: Outcome) -> str:
    """One JSON object, in ASCII: the facts by their names, and the time in UTC."""
    now = f"{_utc(int(created))}.{int(created * 1000) % 1000:03}Z"
    return json.dumps({"time": now, **outcome})


def json_note(text: str) -> str:
    """What is to be said between such lines, as one."""
    return json.dumps({"message": text})


@lru_cache(maxsize=1)
def _local_time(second: int) -> str:
    now = time.localtime(second)
    month = _MONTHS[now.tm_mon - 1]
    return time.strftime(f"%d/{month}/%Y:%H:%M:%S %z", now)


@lru_cache(maxsize=1)
def _utc(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
