"""What the server costs, measured in processes of their own, side by side with others.

::

    python -m tests.benchmarks                        # all scenarios but storm
    python -m tests.benchmarks chunks requests        # some
    python -m tests.benchmarks chunks --rounds 9 --json chunks.json
    python -m tests.benchmarks chunks --servers trio_stream "bare epoll" nginx
    python -m tests.benchmarks storm --clients 2000 --seconds 600

Linux only, from the root of a checkout. Bare loops, which do as little as there is to do, and show
what Trio and h11 cost alone, need nothing beyond what `trio_stream` needs; `pip install -e
'.[bench]'` installs the other servers that are in Python, and the system's package manager nginx.
What is missing is left out.

- `chunks` streams bodies of known length from memory, in chunks of 4 KiB to 1 MiB, to 1 and to 64
  clients, and gives the CPU seconds that the server spends on a GiB.
- `unknown` streams the same with an unknown length, chunked, in turns with a known one.
- `uploads` sends a large request body that the server drops.
- `requests` asks for 13 bytes over 1 and over 64 keep-alive connections, with a bare head and with
  a browser's, and gives the CPU microseconds that the server spends on each request.
- `stalled` lets clients ask for a large stream and read nothing of it, and gives the memory that
  each costs, and whether it grows.
- `vanish` lets clients go away in every way and phase, and gives the time until their handlers have
  ended, and what is left of them.
- `files` downloads a large file that is in the page cache, to 1 and to 64 clients.
- `small_files` asks for a file of 4 KiB over keep-alive connections.
- `slow_files` lets many clients download a large file slowly, and gives the memory that each costs.
- `cold_file` downloads a file that is not in the page cache, and gives the time that small requests
  beside it take.
- `storm`, which runs only when it is named, keeps thousands of good and bad clients connected, as
  many and as long as `--clients` and `--seconds` say; it checks the hash of all that the good ones
  receive, and gives what a probe waits meanwhile, and what is left of them all.

How it measures. A server is a command line and runs as its own process, pinned to one core; the
client, this process, has another one, and does as little as it can, so the server is what limits
both. The CPU time is that of the server's process, its threads and its descendants, user and
system, from after its start and a warm-up to the last byte received. Every server has one worker,
no access log unless its name says so, and the back-pressure that it offers. Servers take turns
(A B A B ...), with a new process in each round, because a noisy machine drifts and a process has
luck with its memory layout. What is printed are medians, in brackets the smallest and the largest;
a ratio to the baseline is the median of the ratios within each round. Trust ratios more than
seconds. On a machine that others use, many short rounds tell more than a few long ones, and the
largest value says more about the others.

The client of `requests` asks on all connections, and then takes the answers. One that asks again as
soon as it is answered, and wrk, gave the same figures within the noise.

To add a server, list it in `servers/__init__.py`: it must print `http://127.0.0.1:PORT` when it
listens, and answer the paths of the scenarios that it offers. To add a scenario, derive from
`model.Scenario` and list it in `scenarios/__init__.py`.
"""
