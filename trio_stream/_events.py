"""Server-sent events (HTML Living Standard, section 9.2)."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from ._background import open_background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ._response_writing import WritingResponse

_LINE_END = re.compile(r"\r\n|\r|\n")


class EventStream:
    """Sends events to one client. `Response.events` makes it."""

    def __init__(self, response: WritingResponse) -> None:
        self._response = response
        self._last_sent = trio.current_time()
        self._sending = False

    async def send(
        self,
        data: str | None = None,
        *,
        event: str | None = None,
        id: str | int | None = None,  # noqa: A002 (its name in the standard)
        retry: int | None = None,
    ) -> None:
        """Send one event.

        Args:
          data: Its text, of one or many lines. Without any, browsers dispatch no event, but take
            notice of `id` and `retry`.
          event: Its type; browsers take `"message"` for one without.
          id: What the client will say in `Last-Event-ID` when it connects again.
          retry: How many milliseconds it shall wait before that.

        Raises:
          ValueError: `event` or `id` is of more than one line, `id` contains a NUL, `retry` is
            negative; or there is nothing to send.
          TypeError: `data` is not text, or `retry` not an integer.
          RuntimeError: The response is complete.
          trio.BusyResourceError: Another task is sending.
        """
        lines = []
        if event is not None:
            lines.append(f"event: {_one_line('event', event)}\n")
        if id is not None:
            if "\0" in (text := _one_line("id", str(id))):
                raise ValueError(f"the id of an event can't contain a NUL, unlike {text!r}")
            lines.append(f"id: {text}\n")
        if retry is not None:
            if not isinstance(retry, int):
                raise TypeError(f"retry must be an integer number of milliseconds, not {retry!r}")
            if retry < 0:
                raise ValueError(f"retry must be a number of milliseconds, not {retry!r}")
            lines.append(f"retry: {retry}\n")
        if data is not None:
            lines += [f"data: {line}\n" for line in _lines("data", data)]
        if not lines:
            raise ValueError("an event needs data, a type, an id or a retry time")
        await self._send("".join(lines))

    async def comment(self, text: str) -> None:
        """Send a comment, which clients ignore.

        Raises:
          TypeError, RuntimeError, trio.BusyResourceError: As `send`.
        """
        await self._send("".join(f": {line}\n" for line in _lines("comment", text)))

    async def _send(self, lines: str) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending an event")
        data = f"{lines}\n".encode()
        self._sending = True
        try:
            await self._response.drain()  # what is queued would count in the offset
            start = self._response.get_write_offset()
            try:
                await self._response.send_chunk(data)
            finally:
                # When this is cancelled, the next event must not begin within this one.
                if sent := self._response.get_write_offset() - start:
                    self._response._send_aside(data[sent:])
        finally:
            self._sending = False
            self._last_sent = trio.current_time()
        await trio.lowlevel.checkpoint()  # the block is being cancelled if the client has gone

    async def _keep_alive(self, seconds: float) -> None:
        while True:
            await trio.sleep_until(self._last_sent + seconds)
            if trio.current_time() >= self._last_sent + seconds:
                if not self._sending:  # or it would come within an event
                    self._response._send_aside(b":\n\n", if_flushed=True)
                self._last_sent = trio.current_time()


@asynccontextmanager
async def open_event_stream(
    response: WritingResponse, keep_alive: float
) -> AsyncIterator[EventStream]:
    """As `Response.events`."""
    if not keep_alive > 0:
        raise ValueError(f"keep_alive must be more than 0 seconds, not {keep_alive!r}")
    await trio.lowlevel.checkpoint()
    response._write_default_header("Content-Type", "text/event-stream")
    response._write_default_header("Cache-Control", "no-store")
    response._write_default_header("X-Accel-Buffering", "no")  # or nginx would collect events
    has_body = response._start_stream("events")
    stream = EventStream(response)
    with response._cancelled_by_abort() as scope:
        if not has_body:
            scope.cancel()  # it was a HEAD: the block could go on forever, for nobody
        async with open_background() as start_soon:
            start_soon(lambda: stream._keep_alive(keep_alive))
            yield stream
    response._end_stream(None)


def _lines(what: str, text: str) -> list[str]:
    if not isinstance(text, str):
        raise TypeError(f"the {what} of an event is text, not {text!r}")
    return _LINE_END.split(text)


def _one_line(what: str, text: str) -> str:
    if len(_lines(what, text)) > 1:
        raise ValueError(f"the {what} of an event is one line, unlike {text!r}")
    return text
