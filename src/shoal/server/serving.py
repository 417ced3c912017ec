"""The application on a port: in the foreground until a signal, or in a thread for tests and notebooks."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

from uvicorn.config import Config
from uvicorn.server import ServerState

from shoal.errors import RunError, SettingError
from shoal.server import logs
from shoal.server.app import App
from shoal.server.certificates import Tls
from shoal.server.guard import Gate, Guarded
from shoal.server.memory import give_back_what_is_large

T = TypeVar("T")
Start = Callable[[], Awaitable[object]]

_BACKLOG = 2048
_LOOK_AGAIN_S = 3600.0
_GOODBYE_S = 1.0
"""How long a connection that is being closed is still read, so that its peer sees the answer before the end."""


@dataclass(frozen=True)
class Place:
    """Where to serve. Port 0 is any that is free. Without TLS only on this machine, and only if `insecure` says so."""

    host: str = "127.0.0.1"
    port: int = 8433
    tls: Tls | None = None
    insecure: bool = False
    drain_s: float = 30.0
    """How long requests that are under way may take when the server is told to end."""

    def __post_init__(self) -> None:
        if self.tls is None and not (self.insecure and _is_loopback(self.host)):
            raise SettingError(
                "a server speaks TLS: give it certificates (development_certificates makes some). "
                "Without, it serves only on 127.0.0.1 or ::1, and only with insecure=True"
            )

    def url(self, port: int) -> str:
        """What clients call when the server has this port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{port}"


def serve(app: App, place: Place, *, start: Start, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serves until SIGTERM or SIGINT, then drains and returns. A second signal does not wait for requests.

    `start` is awaited before the port opens, on the loop on which everything runs; `ready` is told the URL.
    """

    async def until_signal() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        assert me is not None

        def told() -> None:
            if stop.is_set():
                me.cancel()
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)
        try:
            await _serve(app, place, start=start, ready=ready, stop=stop)
        except asyncio.CancelledError:
            if not stop.is_set():
                raise

    give_back_what_is_large()
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(until_signal())


class Serving:
    """A server in a thread, for as long as a `with` lasts.

    `url` is what clients call. `call` runs a coroutine on the server's loop, which is the only place from which the
    coordinator may be used.
    """

    def __init__(self, app: App, place: Place, *, start: Start) -> None:
        self._app, self._place, self._start = app, place, start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="shoal-server", daemon=True)
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self.url = ""

    def __enter__(self) -> Serving:
        self._thread.start()
        self._ready.wait()
        if self._failed is not None:
            raise self._failed
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        if self._failed is not None and error is None:
            raise RunError("the server did not end as it should") from self._failed

    @property
    def alive(self) -> bool:
        """Whether it still serves; what went wrong is raised at the end of the `with`."""
        return self._thread.is_alive()

    def call(self, coroutine: Coroutine[Any, Any, T], *, timeout_s: float | None = 60.0) -> T:
        """What a coroutine gives that runs on the server's loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)

    def _run(self) -> None:
        async def until_told() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            await _serve(self._app, self._place, start=self._start, ready=self._tell, stop=self._stop)

        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(until_told())
        except BaseException as error:
            self._failed = error
        finally:
            self._ready.set()

    def _tell(self, url: str) -> None:
        self.url = url
        self._ready.set()


async def _serve(app: App, place: Place, *, start: Start, ready: Callable[[str], None], stop: asyncio.Event) -> None:
    """Everything from the first to the last connection."""
    await start()
    limits = app.limits
    config = Config(
        app, http=Guarded, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False,
        server_header=False, date_header=False, timeout_keep_alive=round(limits.idle_s),
    )  # fmt: skip
    config.load()
    state, gate = ServerState(), Gate(limits)
    context = place.tls.context() if place.tls is not None else None
    slow: Any = {"ssl_handshake_timeout": limits.header_s, "ssl_shutdown_timeout": _GOODBYE_S} if context else {}
    server = await asyncio.get_running_loop().create_server(
        lambda: Guarded(config, state, gate=gate), place.host, place.port, ssl=context, backlog=_BACKLOG, **slow
    )
    fresh = asyncio.ensure_future(_keep_fresh(context, place.tls))
    try:
        ready(place.url(server.sockets[0].getsockname()[1]))
        await stop.wait()
        app.draining = True
        app.coordinator.drain()
        await _drained(server, state, within_s=place.drain_s)
    finally:
        fresh.cancel()
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await app.coordinator.stop()


async def _drained(server: asyncio.AbstractServer, state: ServerState, *, within_s: float) -> None:
    """Takes no new connection, and lets requests end that are under way: each is the last of its connection."""
    server.close()
    for connection in list(state.connections):
        connection.shutdown()
    until = asyncio.get_running_loop().time() + within_s
    while state.tasks and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.02)
    for task in list(state.tasks):
        task.cancel()
    await asyncio.gather(*state.tasks, return_exceptions=True)


async def _keep_fresh(context: ssl.SSLContext | None, tls: Tls | None) -> None:
    """Takes renewed certificates for new connections, of one's own making or put in place by others."""
    while context is not None and tls is not None:
        await asyncio.sleep(_LOOK_AGAIN_S)
        try:
            tls = await asyncio.to_thread(tls.refresh, context)
        except (OSError, SettingError) as error:
            logs.failure("the certificate could not be renewed", error)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
