"""A server put together in one folder: store, blobs, certificates, operators' tokens, log, application and port."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from logging.handlers import RotatingFileHandler
from pathlib import Path

import msgspec

from shoal.errors import SettingError
from shoal.plan import Plan
from shoal.privacy.budget import Budget
from shoal.rounds.rules import Rules
from shoal.server import logs
from shoal.server.address import Address
from shoal.server.app import App
from shoal.server.audit import audit_writes
from shoal.server.certificates import Tls, development_certificates, given_certificate
from shoal.server.coordinator import Coordinator
from shoal.server.limits import Limits
from shoal.server.metrics import Metrics
from shoal.server.operators import Operators
from shoal.server.serving import Place, Serving, serve
from shoal.store.blob_store import open_blobs
from shoal.store.store import Store, Write, open_store
from shoal.whole_file import write_whole
from shoal.wire.messages import Name

NAME = "shoal"
"""What a federation is called that was given no name."""
LOG_BYTES, LOG_FILES = 10_000_000, 3

_HERE = ("localhost", "127.0.0.1", "::1")
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a server that serves every address is reached from its own machine."""
_NO_PORT = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})


async def nothing() -> None:
    """What is done at the start of a server that has nothing more to do."""


class Federation:
    """Everything that one server needs, made by `at`. It serves once: in the foreground, or in a thread.

    `url` is what clients call, known when it serves; `tls` has the authority's file and fingerprint that clients need.
    """

    def __init__(self, folder: Path, store: Store, app: App, place: Place, *, plans: Sequence[Plan]) -> None:
        self.folder, self.store, self.app, self.place = folder, store, app, place
        self.tls = place.tls
        self.url = ""
        self._plans = tuple(plans)

    @classmethod
    def at(
        cls,
        folder: str | Path,
        *,
        name: str | None = None,
        store: str | None = None,
        blobs: str | None = None,
        host: str = "127.0.0.1",
        port: int = 8433,
        hosts: Iterable[str] = (),
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        insecure: bool = False,
        plans: Sequence[Plan] = (),
        limits: Limits | None = None,
        budget: Budget | None = None,
        drain_s: float = 30.0,
    ) -> Federation:
        """The server of a folder, which is made if it is not there; what was begun in it goes on.

        `store` is the folder's `store.sqlite`, or a URL (`open_store`), and `blobs` its `blobs`, or a URL
        (`open_blobs`). `hosts` are the names by which clients call this machine. Without `certificate` and `key` it
        makes its own in `certificates`. `plans` are those that only a study file defines. `budget` is the most that all
        runs together may give away of one client: it is kept, and holds until another is given. SettingError and
        StoreError for what cannot be.
        """
        if insecure and (certificate is not None or key is not None):
            raise SettingError("a certificate is for TLS, and insecure leaves that out: give one of them")
        folder = Path(folder).absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        tls = None if insecure else _tls(folder, host, tuple(hosts), certificate, key)
        place = Place(host=host, port=port, tls=tls, insecure=insecure, drain_s=drain_s)
        metrics = Metrics()
        opened = metrics.timed(open_store(store or str(folder / "store.sqlite")))
        try:
            kept, (known,) = _kept_name(opened, name), opened.read("federation")
            here, owner = folder / "blobs", f"{known['name']} since {known['created']}"
            there = open_blobs(blobs or here, folder=here, owner=owner)
            coordinator = Coordinator(opened, there, federation=kept, budget=_kept_budget(opened, budget))
            operators = Operators.of(folder)
        except BaseException:
            opened.close()
            raise
        authority = tls.authority.read_bytes() if tls is not None and tls.authority is not None else b""
        app = App(coordinator, operators=operators, metrics=metrics, limits=limits, authority=authority)
        return cls(folder, opened, app, place, plans=plans)

    @property
    def budget(self) -> Budget | None:
        """What all runs together may give away of one client, if that was ever said."""
        return self.coordinator.budget

    @property
    def coordinator(self) -> Coordinator:
        """The federation's clients and runs. It may be used on the server's loop only."""
        coordinator = self.app.coordinator
        assert isinstance(coordinator, Coordinator)
        return coordinator

    def serve(
        self, *, start: Callable[[], Awaitable[object]] = nothing, ready: Callable[[str], None] = lambda url: None
    ) -> None:
        """Serves until SIGTERM or SIGINT, drains, and closes the store.

        `start` is awaited on the server's loop before the port opens: the place for `submit_once`.
        """

        async def begin() -> None:
            await self.coordinator.start(self._plans)
            await start()

        def tell(url: str) -> None:
            self._serves(url)
            ready(self.url)

        with self._told():
            serve(self.app, self.place, start=begin, ready=tell)

    @contextmanager
    def running(self) -> Generator[Serving]:
        """The server in a thread, for as long as a `with` lasts; it drains at the end, and closes the store."""
        serving = Serving(self.app, self.place, start=lambda: self.coordinator.start(self._plans))
        with self._told(), serving:
            self._serves(serving.url)
            yield serving

    async def submit_once(self, plan: Plan, *, name: str, rules: Rules | None = None, seed: int | None = None) -> str:
        """The id of the run of a name: one that is there is taken up, else it is begun.

        SettingError if the one that is there is of another plan, or began with other rules or another seed than those
        that are given.
        """
        rows = await asyncio.to_thread(self.store.read, "run_by_name", name=name)
        if not rows:
            return await self.coordinator.submit(plan, name=name, rules=rules, seed=seed)
        row, other = rows[0], "name the new run otherwise, or leave out what is new"
        if row["plan_digest"] != plan.digest():
            raise SettingError(
                f"the run {name} that is there has another plan, {row['plan_digest'][:12]}, and this one is "
                f"{plan.digest()[:12]}: a run keeps its plan. Give the new one another name"
            )
        if rules is not None and rules != Rules(**json.loads(row["rules"])):
            raise SettingError(f"the run {name} that is there began with other rules, and keeps them: {other}")
        if seed is not None and str(seed) != row["seed"]:
            raise SettingError(f"the run {name} that is there began with another seed, and keeps it: {other}")
        return row["id"]

    @contextmanager
    def _told(self) -> Generator[None]:
        """Closes the store at the end, and says what is wrong with a port that cannot be had."""
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_PORT and not isinstance(error, socket.gaierror):
                raise
            raise SettingError(
                f"port {self.place.port} of {self.place.host} cannot be served: {error.strerror}. End what serves "
                "there, or choose another port or host"
            ) from error
        finally:
            self.store.close()

    def _serves(self, url: str) -> None:
        """Notes where the server is now: for clients in `url`, for operators on this machine in a file."""
        scheme, port = url.partition(":")[0], url.rpartition(":")[2]
        named = self.tls.hosts[0] if self.tls is not None and self.tls.hosts else self.place.host
        self.url = f"{scheme}://{_bracketed(named)}:{port}"
        local = _LOOPBACK.get(self.place.host, self.place.host)
        certificate = None if self.tls is None else str((self.tls.authority or self.tls.certificate).absolute())
        address = Address(f"{scheme}://{_bracketed(local)}:{port}", named, certificate)
        write_whole(self.folder / "server.json", json.dumps(asdict(address)).encode(), mode=0o600)


def log_to_file(folder: str | Path, *, level: int = logging.INFO) -> None:
    """Sends the server's log, one JSON object a line, to `log.jsonl` in a folder; it keeps the last 30 MB."""
    path = Path(folder).absolute() / "log.jsonl"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES - 1, encoding="utf-8")
    handler.setFormatter(logs.Lines())
    logs.log.addHandler(handler)
    logs.log.setLevel(level)
    logs.log.propagate = False


def _kept_name(store: Store, given: str | None) -> str:
    """The federation's name, as it was the first time."""
    rows = store.read("federation")
    if rows and given in (None, rows[0]["name"]):
        return rows[0]["name"]
    if rows:
        raise SettingError(
            f"this store belongs to the federation {rows[0]['name']}, and not to {given}: leave the name out, or use "
            "another folder"
        )
    try:
        name: str = msgspec.convert(given or NAME, Name)
    except msgspec.ValidationError:
        raise SettingError(
            "a federation's name is of letters, digits and .@:+- and begins with a letter or a digit, such as hearts"
        ) from None
    store.write(Write("federation_add", {"name": name, "created": time.time()}, wants=1)).result()
    return name


def _kept_budget(store: Store, given: Budget | None) -> Budget | None:
    """The budget that holds: the one that is given, from now on, or the one that was given before."""
    rows = store.read("budget")
    kept = Budget(rows[0]["epsilon"], rows[0]["delta"]) if rows else None
    if given is None or given == kept:
        return kept
    now, changed = time.time(), "" if kept is None else f", before {kept}"
    row = {"epsilon": given.epsilon, "delta": given.delta, "since": now}
    told = audit_writes("operator", "budget", str(given), f"{given}{changed}", time=now)
    store.write(Write("budget_set", row, wants=1), *told).result()
    return given


def _tls(
    folder: Path, host: str, hosts: tuple[str, ...], certificate: str | Path | None, key: str | Path | None
) -> Tls:
    """The certificate that was given, or one of the folder's own."""
    if certificate is not None and key is not None:
        given = given_certificate(certificate, key, hosts=hosts)
        named = tuple(host for host in given.hosts if "*" not in host)
        if not named:
            raise SettingError(f"{certificate} names no single host: say by which name clients call this machine")
        return replace(given, hosts=named)
    if certificate is not None or key is not None:
        raise SettingError("a certificate and its key are given together: name both files, or neither")
    named = hosts or (socket.gethostname() if host in _LOOPBACK else host,)
    return development_certificates(folder / "certificates", (*named, *_HERE))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
