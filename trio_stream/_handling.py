"""What becomes of a handler: what it raises, and what it leaves undone."""

from __future__ import annotations

import logging
from inspect import isawaitable
from typing import TYPE_CHECKING

from ._bad_request import BadRequestError
from ._stats import AbortReason
from ._transport import ClientGoneError

if TYPE_CHECKING:
    from ._request import Request
    from ._response import Response
    from ._routing import Handler

logger = logging.getLogger("trio_stream")


async def run_handler(handler: Handler, response: Response, request: Request) -> None:
    """Have a request handled, and see to it that there is an answer, or a cut that can be seen.

    No `Exception` of the handler gets further than this.
    """
    may_go_on = True
    status: int | None = None
    try:
        result = handler(response, request)
        if isawaitable(result):
            may_go_on = False
            await result
    # A handler's nursery may raise several, and some beside its Cancelled.
    except* ClientGoneError:
        logger.debug("%r: the client has gone", request)
        status = 400  # which nobody will see
    except* BadRequestError as refusals:
        status = _first(refusals).status
        logger.debug("%r: %d for a bad request: %s", request, status, _first(refusals))
    except* Exception as failures:
        status = 500
        alone = len(failures.exceptions) == 1
        logger.error(
            "%s %s: the handler raised an exception (request %s)",
            request.method,
            request.target,
            request.id,
            exc_info=failures.exceptions[0] if alone else failures,
        )
    was_aborted = response.aborted
    if status is None and not response._handler_returned(may_go_on=may_go_on):
        status = 500
        logger.error(
            "%s %s: the handler returned without an answer; an empty one is end_without_body() "
            "(request %s)",
            request.method,
            request.target,
            request.id,
        )
    elif response.abort_reason is AbortReason.INCOMPLETE and not (was_aborted or status):
        logger.warning(
            "%s %s: the handler returned before the body was complete: %r (request %s)",
            request.method,
            request.target,
            response,
            request.id,
        )
    if status is not None:
        response._handler_failed(status)


def _first(group: BaseExceptionGroup[BadRequestError]) -> BadRequestError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
