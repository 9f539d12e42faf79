"""The smallest app: plain functions, a path parameter, a query, and a JSON answer.

Try:

    curl http://127.0.0.1:8000/
    curl http://127.0.0.1:8000/hello/Ada
    curl "http://127.0.0.1:8000/hello/Ada?times=3"
    curl http://127.0.0.1:8000/headers
    curl --include --request POST http://127.0.0.1:8000/   # 405, and what is allowed
"""

import json

from trio_stream import App, Request, Response

app = App()


@app.get("/")
def index(res: Response, req: Request) -> None:
    res.write_header("Content-Type", "text/plain; charset=utf-8")
    res.end("Hello, world!\n")


@app.get("/hello/:name")
def hello(res: Response, req: Request) -> None:
    times = req.query.get("times", "1")
    res.write_header("Content-Type", "text/plain; charset=utf-8")
    if times not in ("1", "2", "3"):
        res.write_status(400).end("times is 1, 2 or 3\n")
        return
    res.end(f"Hello, {req.params['name']}!\n" * int(times))


@app.get("/headers")
def headers(res: Response, req: Request) -> None:
    res.write_header("Content-Type", "application/json")
    res.end(json.dumps(list(req.headers.items()), indent=2) + "\n")


if __name__ == "__main__":
    app.run(port=8000)
