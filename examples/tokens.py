"""Text that comes token by token, as from a language model, and stops being made when nobody reads.

Try:

    curl --no-buffer http://127.0.0.1:8000/answer
    curl --no-buffer "http://127.0.0.1:8000/answer?question=What+is+a+nursery"

and end one in the middle, with Ctrl-C: the log says how many tokens were made, and no more are.
"""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio

from trio_stream import App, Request, Response

TEXT = """A nursery is a place where tasks live. All that is started in it ends in it: the block
around a nursery is left when the last of its tasks is done, or when they have been cancelled."""

logger = logging.getLogger("tokens")
app = App()


async def make_tokens(question: str) -> AsyncGenerator[str, None]:
    """Stands for a model: each token is a piece of work, and takes its time."""
    made = 0
    try:
        for token in f"{question}? {TEXT}\n".split(" "):
            await trio.sleep(0.05)
            made += 1
            yield token if made == 1 else f" {token}"
    finally:
        logger.info("made %d tokens", made)


@app.get("/answer")
async def answer(res: Response, req: Request) -> None:
    res.write_header("Content-Type", "text/plain; charset=utf-8")
    question = req.query.get("question", "What is a nursery")
    async with aclosing(make_tokens(question)) as tokens:
        async for token in tokens:
            await res.send_chunk(token.encode())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    app.run(port=8000)
