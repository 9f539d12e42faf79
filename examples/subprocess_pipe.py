"""The output of a process as a response: it waits for a slow client, and is killed when that goes.

`/count` runs a process that counts for as long as somebody listens; `/fail` one that fails, as
the trailer `Exit-Status` says, to clients that keep trailers. Try:

    curl http://127.0.0.1:8000/count | head
    curl --limit-rate 10k --output numbers http://127.0.0.1:8000/count
    curl --include --raw --header "TE: trailers" http://127.0.0.1:8000/fail
"""

import subprocess
import sys

import trio

from trio_stream import App, Request, Response

COUNT = "import itertools\nfor number in itertools.count(): print(number)"
FAIL = "import sys\nprint('so far, so good', flush=True)\nsys.exit(3)"

app = App()


async def send_output(res: Response, command: list[str]) -> None:
    res.write_header("Content-Type", "text/plain; charset=utf-8")
    async with trio.open_nursery() as nursery:
        # Cancelling this, as the end of the client does, kills the process and waits for it.
        process = await nursery.start(start_process, command)
        await res.send_from(process.stdout)
        status = await process.wait()
    res.end(trailers={"Exit-Status": status})


async def start_process(
    command: list[str], task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED
) -> None:
    await trio.run_process(
        command, stdout=subprocess.PIPE, check=False, task_status=task_status, deliver_cancel=kill
    )


async def kill(process: trio.Process) -> None:
    process.kill()


@app.get("/count")
async def count(res: Response, req: Request) -> None:
    await send_output(res, [sys.executable, "-c", COUNT])


@app.get("/fail")
async def fail(res: Response, req: Request) -> None:
    await send_output(res, [sys.executable, "-c", FAIL])


if __name__ == "__main__":
    app.run(port=8000)
