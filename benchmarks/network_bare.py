"""What Shoal's server is measured against: the least that a server can do, under the same uvicorn and TLS.

`python -m benchmarks.network_bare FOLDER SETTINGS`: /echo reads a message and answers with as many bytes as a check-in
has; /hash streams a body into SHA-256.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import uvloop
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from benchmarks.network_memory import peak_mb
from shoal.server.certificates import development_certificates

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]


class Bare:
    """The two endpoints, as ASGI."""

    def __init__(self, answer_bytes: int) -> None:
        self._answer = b"x" * answer_bytes

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        body = await (hashed(receive) if scope["path"] == "/hash" else echoed(receive, self._answer))
        headers = [(b"content-type", b"application/msgpack"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def hashed(receive: Receive) -> bytes:
    """The digest of a body that is not kept."""
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    return digest.hexdigest().encode()


async def echoed(receive: Receive, answer: bytes) -> bytes:
    """An answer of a size, after the whole body."""
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    return answer


async def serve(folder: Path, app: Any) -> None:
    """Serves until the process is ended."""
    tls = development_certificates(folder / "certificates", ("localhost", "127.0.0.1"))
    config = Config(
        app, http=HttpToolsProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, date_header=False, timeout_keep_alive=75,
    )  # fmt: skip
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpToolsProtocol(config, state, {}), "127.0.0.1", 0, ssl=tls.context(), backlog=2048
    )
    port = server.sockets[0].getsockname()[1]
    said = {"url": f"https://localhost:{port}", "authority": str(tls.authority), "resident_mb": peak_mb()}
    print(json.dumps(said), flush=True)
    await server.serve_forever()


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(folder, Bare(settings["answer_bytes"])))


if __name__ == "__main__":
    main()
