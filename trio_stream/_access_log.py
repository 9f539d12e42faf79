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
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._request_head import Fields, RequestHead
    from ._stats import AbortReason

logger = logging.getLogger("trio_stream.access")

_MESSAGE = "%(client)s: %(method)s %(target)s: %(status)s, %(ended)s (request %(request_id)s)"

# In the order of the lines.
_FACTS = (
    *("client", "method", "target", "http_version", "status", "body_bytes", "duration"),
    *("parks", "ended", "request_id", "referer", "user_agent"),
)

# Not by `strftime`, whose names of months depend on the locale.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What could end a field or a line, or move a terminal's cursor.
_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_UNSAFE_WORD = re.compile(r"[^!#-\[\]-~]")


class Outcome(NamedTuple):
    """What is known of a response that is over, as it lies there.

    Attributes:
      created: When it was over, in seconds since the epoch.
      head: The head of its request; `None` if that could not be read.
      client: Its address, as `Request.client`.
      request_id: As `Request.id`.
      duration: In seconds, from the request's head to the end of the response.
      status: `None` if nothing was sent.
      body_bytes: How many bytes of the body were accepted.
      parks: How often it waited for the client.
      abort_reason: Why it ended early; `None` if it did not.
    """

    created: float
    head: RequestHead | None
    client: object
    request_id: str
    duration: float
    status: int | None
    body_bytes: int
    parks: int
    abort_reason: AbortReason | None

    @property
    def size(self) -> int:
        """About how many bytes it keeps in memory."""
        return 500 + (0 if self.head is None else len(self.head.target) + len(self.head.fields.raw))

    def facts(self) -> dict[str, Any]:
        """The same for people: the attributes of a record."""
        method = target = http_version = referer = user_agent = None
        if self.head is not None:
            method = self.head.method.decode("ascii")
            target = self.head.target.decode("ascii")
            http_version = self.head.http_version.decode("ascii")
            referer, user_agent = _referer_and_user_agent(self.head.fields)
        return {
            "client": _name_client(self.client),
            "method": method,
            "target": target,
            "http_version": http_version,
            "status": self.status,
            "body_bytes": self.body_bytes,
            "duration": self.duration,
            "parks": self.parks,
            "ended": "done" if self.abort_reason is None else self.abort_reason.name.lower(),
            "request_id": self.request_id,
            "referer": referer,
            "user_agent": user_agent,
        }


class OutcomeHandler(logging.Handler):
    """A handler that takes outcomes as they are. A record costs a third of a small request."""

    @abstractmethod
    def take(self, outcome: Outcome) -> None:
        """Handle the outcome of a response."""


def log_outcome(outcome: Outcome) -> None:
    """Log a response that is over."""
    if len(logger.handlers) == 1 and not logger.propagate:
        (handler,) = logger.handlers
        if isinstance(handler, OutcomeHandler) and not (handler.filters or logger.filters):
            handler.take(outcome)
            return
    facts = outcome.facts()
    # Two thirds of the cost of `logger.info(extra=facts)`, which looks for its caller.
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, _MESSAGE, (facts,), None)
    vars(record).update(facts)
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
    return None if client is None else str(client) or "unix:"


def combined_line(created: float, facts: Mapping[str, Any]) -> str:
    r"""A line as Apache and nginx write it in their format `combined`, with four fields more.

    These are the seconds it took, how often it waited for the client, how it ended, and the id of
    the request. What is not known is `-`, a status that was never sent `000`. In what a client
    chooses, quotes, backslashes and all that is not printable ASCII are `\xHH`.
    """
    client = _UNSAFE_WORD.sub(_escape, facts["client"] or "-")
    request = "-"
    if facts["method"] is not None:
        target = _UNSAFE.sub(_escape, facts["target"])
        request = f"{facts['method']} {target} HTTP/{facts['http_version']}"
    return (
        f"{client} - - [{_local_time(int(created))}] "
        f'"{request}" {facts["status"] or 0:03} {facts["body_bytes"]} '
        f'"{_UNSAFE.sub(_escape, facts["referer"] or "-")}" '
        f'"{_UNSAFE.sub(_escape, facts["user_agent"] or "-")}" '
        f"{facts['duration']:.6f} {facts['parks']} {facts['ended']} {facts['request_id']}"
    )


def json_line(created: float, facts: Mapping[str, Any]) -> str:
    """One JSON object, in ASCII: the facts by their names, and the time in UTC."""
    now = f"{_utc(int(created))}.{int(created * 1000) % 1000:03}Z"
    return json.dumps({"time": now, **{name: facts[name] for name in _FACTS}})


def json_note(text: str) -> str:
    """What is to be said between such lines, as one."""
    return json.dumps({"message": text})


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
