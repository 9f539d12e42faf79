"""A coverage-guided fuzzer of the server: raw bytes, clients of every kind, transports that fail.

::

    python -m tests.fuzz                                  # 100,000 inputs, on all cores
    python -m tests.fuzz --inputs 1000000 --seed 7 --jobs 2
    python -m tests.fuzz --kind transport --inputs 10000
    python -m tests.fuzz --replay tests/fuzz/findings/transport-0123abcd.json

Each input is a `cases.Case`. There are three kinds of them:

- `protocol`: the bytes go into the part without I/O, in two different ways of cutting them. Nothing
  but `BadRequestError` may come out, and the same requests either way.
- `connection`: a client in memory talks to a whole server, with small limits and an app of many
  handlers. It may pause, read slowly, end its stream or vanish.
- `transport`: the same while calls of the server fail, are blocked or do a part of their work; half
  of them over real sockets, where that happens to system calls.

All waiting is on a mock clock, so a client that stalls for minutes takes no time.

Of each connection these must hold (`targets.py`, `oracle.py`): no exception leaves the server, none
is logged and none is lost in a finalizer; it ends; no task, descriptor, timer or registration is
left; what is on the wire are responses as h11 reads them, with the bodies that the handlers meant,
cut only where something was lost; nothing follows an answer that closes; sound requests of a client
that stays are all answered well, with the body that was sent to them.

New inputs are made by `mutations.py`, of sound requests and of earlier inputs that reached a new
block of `trio_stream` or h11, or took a new way through them (`blocks.py`). With the same seed,
jobs and inputs, the same happens again. What went wrong is written to `findings/`, as short as it
could be made.
"""
