"""The error for what a client got wrong."""


class BadRequestError(Exception):
    """What a client sent can't be served as it is.

    Raised by the methods that read requests. A handler may catch it, or raise its own: if it lets
    one pass and has sent nothing, the client gets `status`; otherwise the response is cut. The
    connection closes where nobody could tell where the next request begins.

    Args:
      message: For the log; the client does not see it.
      status: The status code of the answer, from 400 to 599.

    Raises:
      ValueError: `status` is not such a code.
    """

    def __init__(self, message: str, status: int) -> None:
        if status not in range(400, 600):
            raise ValueError(f"the status of a bad request is from 400 to 599, not {status!r}")
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[object, ...]:
        # Copies are not made by `__init__`, whose arguments are not all in `args`.
        return type(self).__new__, (type(self), *self.args), self.__dict__
