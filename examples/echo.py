"""Both directions at once: what comes in goes out, while more is still coming in.

A client that does not read its answer stops the server's reading, and so its own sending: however
large the body, only a few buffers of it are here at a time.

Try:

    curl --data-binary "Is there anybody?" http://127.0.0.1:8000/echo
    head --bytes 1G /dev/zero | curl --limit-rate 100M --upload-file - --output copy http://127.0.0.1:8000/echo
"""

from trio_stream import App, Request, Response

app = App()


@app.any("/echo")
async def echo(res: Response, req: Request) -> None:
    length = req.headers.get("Content-Length")
    res.write_header("Content-Type", req.headers.get("Content-Type", "application/octet-stream"))
    await res.send_from(req.body, None if length is None else int(length))


if __name__ == "__main__":
    app.run(port=8000)
