"""A structured-concurrency HTTP/1.1 server for Trio that streams."""

# Seven groups of modules; each imports only from those below it, in its group as well:
#
#   The command line (`python -m trio_stream`), and sharing a file or a directory
#     __main__
#     _command_line                         options
#     _targets                              TARGET: an app, an example, a path
#     _share                                the app that serves a path
#     _progress                             transfers, shown while they last
#     _live         _workers   _log_writer  in a terminal; the supervisor; logs by threads
#     _announce     _demo      _transfer    _zip   _worker   _reload   _line_writer
#
#   The server
#     testing                               an app in memory
#     _app                                  serve, run
#     _signals      _routes                 what signals do; what an app answers
#     _server       _metrics                shared state, shutdown; counters, probes
#     _connection   _worker_stats           one client: request, handler, response, and again
#     _handling                             what becomes of a handler
#     _accept       _access_log             _listeners   _proxied
#
#   Directories, as URLs and as pages
#     _listing      _file_page
#     _static       _page
#     _tree
#
#   Requests and responses, as handlers see them
#     _routing
#     _request      _response
#     _forms        _file_response          further ways to read, to send
#     _body_stream  _events    _file_answer
#     _response_writing                     the head and the body, as a handler writes them
#     _response_sending                     how they are sent, step by step
#     _response_base                        what a response is, and how it ends
#     _message      _outgoing  _request_body   _paced_part   _read_part
#     _turn         _flusher                when others run
#
#   Transports: non-blocking partial sends
#     _stream_transport                     over any stream, by two tasks
#     _socket_transport        _tls         by system calls; over another transport
#     _transport                            what they have in common
#     _timeouts     _readiness              who takes too long; who is writable, who hung up
#     _background   _certificates
#
#   HTTP without I/O
#     _protocol                             one connection
#     _request_rules                        what a head must not say
#     _request_head            _framing     heads, by h11; where bodies end
#     _guard        _request_target         _content_type   _forwarded   _proxy_protocol
#     _response_head           _conditions   _ranges   _media
#     _grammar      _addresses    _bad_request
#
#   Used by all
#     _config       _stats     _file        _wording   _console

from ._app import App as App
from ._bad_request import BadRequestError as BadRequestError
from ._certificates import Certificates as Certificates
from ._config import Config as Config
from ._events import EventStream as EventStream
from ._forms import FormFile as FormFile
from ._forms import Part as Part
from ._outgoing import SendResult as SendResult
from ._outgoing import WriteResult as WriteResult
from ._request import Request as Request
from ._response import Response as Response
from ._server import Server as Server
from ._stats import AbortReason as AbortReason
from ._stats import Stats as Stats
from ._version import __version__ as __version__

# Tracebacks, documentation and pickles name what users import, not where it is kept.
for _public in (
    AbortReason,
    App,
    BadRequestError,
    Certificates,
    Config,
    EventStream,
    FormFile,
    Part,
    Request,
    Response,
    SendResult,
    Server,
    Stats,
    WriteResult,
):
    _public.__module__ = __name__
del _public
