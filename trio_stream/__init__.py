"""A structured-concurrency HTTP/1.1 server for Trio that streams."""

# The layers, each importing only from those below it:
#
#     __main__ (the command line), testing
#     _app          routes, serve, run
#     _server       listeners, what connections share, shutdown
#     _connection   one transport and one protocol: the cycle of requests and responses
#     _routing      path patterns -> handler
#     _request      _response
#     _protocol     _transport    h11, without I/O; partial sends, without HTTP
#     _stalls       _readiness    who takes nothing; who is writable, who hung up
#     _config       _stats        _background

from ._app import App as App
from ._config import Config as Config
from ._request import Request as Request
from ._response import Response as Response
from ._response import SendResult as SendResult
from ._server import Server as Server
from ._stats import AbortReason as AbortReason
from ._stats import Stats as Stats
from ._version import __version__ as __version__

# Tracebacks, documentation and pickles name what users import, not where it is kept.
for _public in (App, Config, Request, Response, SendResult, Server, AbortReason, Stats):
    _public.__module__ = __name__
del _public
