"""A bare ASGI application on uvicorn, uvloop and httptools, which answers every request with the same kilobyte:
`python -m benchmarks.noop_http`.
"""

import socket
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn

REPLY = b'{"x":"' + b"x" * 992 + b'"}'
START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(REPLY)).encode())],
}


async def noop(scope: Mapping[str, Any], receive: Callable[[], Any], send: Callable[[Mapping[str, Any]], Any]) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send({"type": "http.response.body", "body": REPLY})


def main() -> None:
    config = uvicorn.Config(
        noop,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
    )
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        print(f"127.0.0.1:{listener.getsockname()[1]}", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
