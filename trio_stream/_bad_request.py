"""What a client is told whose request is none."""


class BadRequestError(Exception):
    """What the client sent is no HTTP/1.1 request: it gets an answer, and the connection closes.

    Attributes:
      status: The status code of the answer, from 400 to 599.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
