"""Code that is watched for changes, by a library that may fail."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from trio_stream import _reload
from trio_stream._reload import watch_code

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence

    import pytest
    from trio.testing import MockClock


class Watch:
    """Takes the place of `watchfiles`: what its generators yield, each until it is exhausted."""

    def __init__(self, *runs: Sequence[object]) -> None:
        self._runs = iter(runs)
        self.polling: list[bool | None] = []

    def watch(
        self, path: str, *, stop_event: threading.Event, force_polling: bool | None, **_: object
    ) -> Iterator[object]:
        assert path == "."
        assert not stop_event.is_set()
        self.polling.append(force_polling)
        for change in next(self._runs):
            if isinstance(change, Exception):
                raise change
            yield change

    PythonFilter = staticmethod(lambda: None)


async def test_code_that_cannot_be_watched_is_watched_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    error = RuntimeError("unable to decode path")
    watch = Watch([1, error], [error], [2, PermissionError("no")], [3])
    monkeypatch.setattr(_reload, "watchfiles", watch)
    seen = []
    async with aclosing(watch_code()) as changes:
        async for change in changes:
            seen.append(change)
            if change == 3:
                break
    assert seen == [1, 2, 3]
    assert watch.polling == [None, True, True, True]
    assert caplog.messages == [
        "the code can't be watched for the moment: unable to decode path",
        "the code can't be watched for the moment: no",
    ]
