"""A structured-concurrency HTTP/1.1 server for Trio that streams."""

# The layers, each importing only from those below it:
#
#     __main__ (the command line), testing
#     _command_line               its options
#     _targets      _announce    what it serves, and where
#     _workers                    several processes that serve, and who keeps them running
#     _log_writer   logs on stdout and stderr
#     _share        the app that serves a file or a folder to people
#     _progress     _zip        what is sent to whom; a folder as an archive
#     _live         transfers as lines in a terminal
#     _transfer     what is told of a response that sends a file
#     _app          routes, serve, run
#     _signals      what signals do to a server
#     _listeners    where it listens
#     _server       what connections share, shutdown
#     _metrics      what it counts, and whether it is well
#     _proxied      connections that begin with the PROXY protocol
#     _connection   one transport and one protocol: the cycle of requests and responses
#     _access_log   what is told of each response
#     _static       a folder as a part of an app
#     _listing      _file_page    a folder and a file as pages
#     _routing      path patterns -> handler
#     _request      _response
#     _response_served            what the connection does with a response
#     _response_sending           how it is sent, step by step
#     _forms        _body_stream  _events  _file_response    further ways to read, to send
#     _file_answer  what a client gets of a file
#     _response_base              what it is at any moment, and how it ends
#     _message      _outgoing     a body read whole; the bytes of a response
#     _content_type               what a body is
#     _request_body
#     _turn         how long a response sends before others run
#     _stream_transport           partial sends over any stream, by tasks
#     _tls          _socket_transport           TLS over a transport; sends by system calls
#     _protocol     _transport    h11, without I/O; partial sends, without HTTP
#     _request_rules              what a request must not say
#     _request_head               the head of a request, as h11 reads it
#     _framing      _target       where a body ends; what a request is for
#     _guard        the raw bytes of heads, checked
#     _head         the head of a response, checked
#     _page         the look of pages that show files
#     _certificates               what TLS shows of the server
#     _tree         a folder, and what may be seen of it
#     _file         a regular file, and what can be read of it without waiting
#     _conditions   _ranges       _media    _wording    versions, parts, types, names of files
#     _forwarded    _proxy_protocol             who the client is, as proxies tell
#     _addresses                  addresses, and whom to trust
#     _stalls       _readiness    who takes nothing; who is writable, who hung up
#     _flusher      what is held back to go together
#     _worker       _worker_stats               one of several processes, and what it tells them
#     _line_writer  _accept       lines that a thread writes; connections accepted
#     _reload       changes of the code
#     _config       _stats        _background    _bad_request   _stdout

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
