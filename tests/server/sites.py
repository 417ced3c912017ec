"""A server with its coordinator, and sites that do a secure sum as an agent does, over TLS on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import urllib3

from shoal.algorithms import enter
from shoal.key import Key
from shoal.plan import Plan
from shoal.rounds.rules import Rules
from shoal.secure.client import ClientSession
from shoal.secure.contribution import form_of, to_ring
from shoal.secure.terms import Demand, Terms
from shoal.server.app import App
from shoal.server.certificates import Tls
from shoal.server.coordinator import Coordinator
from shoal.server.limits import Limits
from shoal.server.operators import Operators
from shoal.server.serving import Place, Serving
from shoal.store.blobs import Blobs
from shoal.store.store import Store
from shoal.turns import notes_of, take_turn
from shoal.wire.blobs import manifest_of
from shoal.wire.codec import decode
from shoal.wire.messages import (
    CheckIn,
    Holding,
    Message,
    Orders,
    Problem,
    Result,
    SecureNext,
    SecureStep,
    Task,
    Verdict,
)
from shoal.wire.payloads import call_of
from shoal.wire.signing import new_key, public_key_of, sign
from tests.server.caller import Caller

STAGES = ("advertise", "share", "mask", "confirm", "answer")
TOKEN = "one for each site"


class Refused(Exception):  # noqa: N818
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class Server:
    """A federation that can be stopped and started again; its port changes with every start."""

    def __init__(self, folder: Path, store: Store, tls: Tls, plan: Plan) -> None:
        self.folder, self.store, self.tls, self.plan = folder, store, tls, plan
        self.url = ""
        self.starts = 0
        self._calls = threading.Lock()

    def start(self) -> None:
        """Takes up what is durable."""
        self.coordinator = Coordinator(self.store, Blobs(self.folder / "blobs"), federation="hearts")
        app = App(
            self.coordinator, operators=Operators.of(self.folder), limits=Limits(client_rate=1000, anonymous_rate=1000)
        )
        place = Place(port=0, tls=self.tls, drain_s=5.0)
        self._serving = Serving(app, place, start=lambda: self.coordinator.start([self.plan]))
        self._serving.__enter__()
        self.url, self.starts = self._serving.url, self.starts + 1

    def stop(self) -> None:
        """Ends it. What was in memory is gone."""
        self._serving.__exit__(None, None, None)

    def restart(self) -> None:
        with self._calls:
            self.stop()
            self.start()

    def call(self, made: Callable[[], Any]) -> Any:
        """What a coroutine of the coordinator's gives."""
        with self._calls:
            return self._serving.call(made())

    def submit(self, rules: Rules, *, seed: int = 7) -> str:
        return self.call(lambda: self.coordinator.submit(self.plan, name="run", rules=rules, seed=seed))

    def wait_over(self, run: str, *, within_s: float = 40.0) -> Any:
        until = time.monotonic() + within_s
        while (view := self.view(run)).status in ("waiting", "open", "pausing"):
            assert time.monotonic() < until, (view, view.waits_for)
            time.sleep(0.02)
        return view

    def view(self, run: str) -> Any:
        async def look() -> Any:
            return self.coordinator.run(run)

        return self.call(look)

    def vector(self, run: str) -> Any:
        return self.call(lambda: self.coordinator.state(run)).vector


@dataclasses.dataclass
class Sites:
    """Sites by name, each in a thread. `before` is called by a site before each stage; False: it is lost there."""

    server: Server
    data: Mapping[str, Any]
    before: Callable[[Site, Task, str], bool] = lambda site, task, stage: True

    def __post_init__(self) -> None:
        self.keys = {name: new_key() for name in self.data}
        self.roster = {name: public_key_of(key) for name, key in self.keys.items()}
        self.over = threading.Event()
        self.sites = {name: Site(self, name) for name in self.data}

    @contextlib.contextmanager
    def there(self) -> Iterator[None]:
        """Everybody is there, for as long as a `with` lasts."""
        for site in self.sites.values():
            site.join_server()
        for site in self.sites.values():
            site.thread.start()
        try:
            yield
        finally:
            self.over.set()
            for site in self.sites.values():
                site.thread.join(60)
        failures = [site.failure for site in self.sites.values() if site.failure is not None]
        if failures:
            raise failures[0]


class Site:
    """One of them."""

    def __init__(self, all: Sites, name: str) -> None:
        self.all, self.name, self.turn = all, name, Turn
        self.thread = threading.Thread(target=self._live)
        self.failure: BaseException | None = None
        self.codes: list[str] = []
        self.waits = True
        """Whether it asks again where the server says that this may help."""
        self.verdicts: list[str] = []
        self.sessions: list[bytes] = []
        self._lost: dict[str, None] = {}

    def join_server(self) -> None:
        """Has an identity at the server, and a session."""
        server = self.all.server
        token = server.call(lambda: server.coordinator.token(label=self.name, uses=1))
        self._call_up()
        assert self.caller.enroll(self.name, token=token).status == 200
        assert self.caller.hello(boot=self.caller.info().boot).status == 200

    def _call_up(self) -> None:
        server, client = self.all.server, getattr(self, "caller", None)
        self.url = server.url
        self.caller = Caller(server.url, str(server.tls.authority), key=self.all.keys[self.name])
        if client is not None:
            self.caller.client, self.caller.incarnation = client.client, client.incarnation

    def _live(self) -> None:
        try:
            while not self.all.over.is_set():
                holding = tuple(Holding(task=task) for task in self._lost)
                orders = self.ask("/v1/checkin", CheckIn(wait_s=0.3, holding=holding), Orders)
                for task in orders.cancelled:
                    self._lost.pop(task, None)
                for task in orders.tasks:
                    self._do(task)
        except BaseException as error:
            if not self.all.over.is_set():
                self.failure = error

    def _do(self, task: Task) -> None:
        try:
            self.turn(self, task).take()
        except Lost:
            self._lost[task.task] = None
        except Refused as refused:
            self.codes.append(refused.code)

    def ask(self, path: str, message: Message, kind: type[Any]) -> Any:
        """What the server answers, however often it has to be asked; Refused with a code."""
        until = time.monotonic() + 30
        while True:
            assert time.monotonic() < until, (self.name, path)
            try:
                answer = self.caller.ask("POST", path, message)
                if answer.status == 200:
                    return decode(answer.data, kind)
                code = decode(answer.data, Problem).code
                if code == "session-unknown":
                    self.caller.hello(boot=self.caller.info().boot)
                elif not self.waits or code not in ("store", "busy", "draining"):
                    raise Refused(code)
            except (urllib3.exceptions.HTTPError, OSError):
                pass
            if self.url != self.all.server.url:
                self._call_up()
                with contextlib.suppress(urllib3.exceptions.HTTPError, OSError):
                    self.caller.hello(boot=self.caller.info().boot)
            time.sleep(0.02)


class Lost(Exception):  # noqa: N818
    """The site is gone, in the middle of its part."""


class Turn:
    """A site's part in one round."""

    def __init__(self, site: Site, task: Task) -> None:
        self.site, self.task, self.plan = site, task, site.all.server.plan
        assert task.secure is not None
        self.terms = msgspec.msgpack.decode(task.secure, type=Terms)
        site.sessions.append(self.terms.session)
        key = site.all.keys[site.name]
        self.session = ClientSession(
            self.terms, name=site.name, sign=lambda text: sign(key, text), roster=site.all.roster,
            demand=Demand(clients=2, threshold=0.5), entropy=os.urandom(32),
        )  # fmt: skip

    def take(self) -> None:
        advertised = self.step("advertise", self.session.advertise())
        inbox = self.step("share", self.session.share(advertised))
        self.before("mask")
        message, body = self.masked(inbox)
        verdict = self.report(message, body)
        self.site.verdicts.append(verdict.verdict)
        if verdict.verdict != "counted":
            return
        survivors = self.told("mask", message)
        confirmations = self.step("confirm", self.session.confirm(survivors))
        self.before("answer")
        self.say("answer", self.session.answer(confirmations))

    def masked(self, inbox: bytes) -> tuple[bytes, bytes]:
        algorithm, task = self.plan.algorithm, self.task
        assert task.inline is not None
        data = self.site.all.data[self.site.name]
        call = call_of(algorithm, task.inline)
        payload, _ = take_turn(algorithm, call, data, enter(algorithm), Key(*task.key))
        form = form_of(algorithm.aggregation, algorithm.layout, notes=notes_of(algorithm), clients=100)
        message, body = self.session.mask(inbox, *to_ring(payload, dataclasses.replace(form, bits=self.terms.bits)))
        return message, bytes(body)

    def report(self, message: bytes | None, body: bytes) -> Verdict:
        result = Result(manifest=manifest_of(body), inline=body, secure=message)
        return self.site.ask(f"/v1/tasks/{self.task.task}/report", result, Verdict)

    def before(self, stage: str) -> None:
        if not self.site.all.before(self.site, self.task, stage):
            raise Lost

    def step(self, stage: str, message: bytes) -> bytes:
        self.before(stage)
        return self.told(stage, message)

    def told(self, stage: str, message: bytes) -> bytes:
        """What follows a stage, when it is over."""
        while True:
            answer = self.say(stage, message, wait_s=0.5)
            if answer is not None:
                return answer

    def say(self, stage: Any, message: bytes, *, wait_s: float = 0.0) -> bytes | None:
        step = SecureStep(stage=stage, message=message, wait_s=wait_s)
        return self.site.ask(f"/v1/tasks/{self.task.task}/secure", step, SecureNext).message
