"""A reverse proxy: streams requests to another server, and its answers back, with httpx.

Back-pressure runs from end to end: a client that does not read stops the other server, and one that
goes cancels the request there. But httpx sends a whole request before it reads the answer: a server
that answers a large upload while it comes, as our echo does, waits in vain for it to go on. Needs
httpx: pip install httpx. Try, with the song as the other server:

    python -m trio_stream song --port 8001
    UPSTREAM=http://127.0.0.1:8001 python -m trio_stream relay
    curl --limit-rate 500k --output song.wav http://127.0.0.1:8000/song.wav
"""

import os

import httpx

from trio_stream import App, Request, Response

UPSTREAM = os.environ.get("UPSTREAM", "http://127.0.0.1:8001")
TIMEOUT = httpx.Timeout(10, read=60)
SSL_CONTEXT = httpx.create_ssl_context(trust_env=False)  # loaded once, as that takes its time

# They are about one connection, and not for the next (RFC 9110 section 7.6.1).
HOP_BY_HOP = {
    *("connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"),
    *("host", "expect", "date", "content-length"),  # and these are told anew
}

app = App()


def end_to_end(fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    named = {
        token.strip().lower()
        for name, value in fields
        if name.lower() == "connection"
        for token in value.split(",")
    }
    return [(name, value) for name, value in fields if name.lower() not in HOP_BY_HOP | named]


@app.any("/*")
async def relay(res: Response, req: Request) -> None:
    fields = end_to_end(list(req.headers.items()))
    length = req.headers.get("Content-Length")
    has_body = length is not None or "Transfer-Encoding" in req.headers
    if length is not None:
        fields.append(("Content-Length", length))
    fields.append(("Via", "1.1 trio_stream"))
    query = "".join(req.target.partition("?")[1:])  # the target itself may name another host
    # Not one client for all, which would keep the cookies of one user and send them for the next.
    async with httpx.AsyncClient(verify=SSL_CONTEXT, trust_env=False) as client:
        # Not `build_request`, which would ask for codings that the client may not know.
        request = httpx.Request(
            req.method,
            f"{UPSTREAM}{req.raw_path}{query}",
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in fields],
            content=req.body if has_body else None,
            extensions={"timeout": TIMEOUT.as_dict()},
        )
        try:
            answer = await client.send(request, stream=True)
        except httpx.TimeoutException:
            res.write_status(504).end("The other server is too slow.\n")
            return
        except httpx.TransportError as exc:
            res.write_status(502).end(f"The other server does not answer: {exc}\n")
            return
        try:
            await send_answer(res, answer)
        finally:
            await answer.aclose()


async def send_answer(res: Response, answer: httpx.Response) -> None:
    res.write_status(answer.status_code)
    # Byte by byte: httpx would guess the charset of values.
    fields = [(name.decode("ascii"), value.decode("latin-1")) for name, value in answer.headers.raw]
    for name, value in end_to_end(fields):
        res.write_header(name, value)
    length = answer.headers.get("Content-Length")
    if length == "0" or answer.status_code in (204, 304):
        res.end_without_body()
    else:
        await res.send_from(answer.aiter_raw(), None if length is None else int(length))


if __name__ == "__main__":
    app.run(port=8000)
