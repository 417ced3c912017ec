"""A whole federation in one process, for tests of your own studies: a server with its store in memory and a fleet.

Everything is the real thing but the network: the server's coordinator and state machines, the store (SQLite in
memory), blobs on disk in a temporary folder, messages that are encoded and decoded, each client's turn. Clients come
in any order, and may be told to drop out.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np

from shoal.algorithms import enter
from shoal.data import Population
from shoal.errors import RunError, ServerError, SettingError
from shoal.key import Key
from shoal.plan import Plan
from shoal.rounds.rules import Rules
from shoal.secure.client import ClientSession
from shoal.secure.contribution import form_of, to_ring
from shoal.secure.terms import Demand, Terms
from shoal.server.coordination import Known
from shoal.server.coordinator import Coordinator
from shoal.server.views import RunView
from shoal.store.blobs import Blobs
from shoal.store.store import Store, open_store
from shoal.turns import notes_of, own_turn
from shoal.wire.blobs import blob_id, manifest_of
from shoal.wire.codec import decode, encode
from shoal.wire.messages import (
    INLINE_BYTES,
    CheckIn,
    Declined,
    Enroll,
    Holding,
    Missing,
    Orders,
    Result,
    SecureNext,
    SecureStep,
    Task,
    Upload,
    Verdict,
)
from shoal.wire.payloads import call_of, pack_payload
from shoal.wire.signing import new_key, public_key_of, sign

M = TypeVar("M")

Stage = Literal["advertise", "share", "mask", "confirm", "answer"]
Drops = Callable[[str, int], bool]
"""Whether a client, by name, drops out of a round, counted from 0: it takes its task and never reports it."""


@dataclass(frozen=True)
class Deployed:
    """What a deployed run left: the server's state, and the run as an operator sees it."""

    state: Any
    run: RunView
    verdicts: Mapping[str, int] = field(default_factory=dict)

    @property
    def vector(self) -> np.ndarray[Any, Any]:
        """The model, as a vector."""
        return np.asarray(self.state.vector)


def deploy(
    plan: Plan,
    clients: Population | Mapping[str, Any],
    *,
    seed: int = 0,
    rules: Rules | None = None,
    drops: Drops | None = None,
    timeout_s: float = 600.0,
) -> Deployed:
    """Runs a plan from beginning to end on a server and clients in this process, each client in its turn.

    With all clients there the model is that of `simulate(plan, clients, seed=seed, runtime="local")`: equal to the bit
    where the chain ends on a grid, within float32 rounding otherwise; but noise is the operating system's, another each
    time. RunError if the run does not end well. A secure sum is the whole protocol, in which each client has keys of
    its own and knows those of the others.

    >>> from shoal import FedAvg, hospitals, models, simulate
    >>> plan = Plan(FedAvg(models.logistic(13), steps=2, batch_size="all"), rounds=2)
    >>> deployed = deploy(plan, hospitals())
    >>> bool(np.allclose(deployed.vector, simulate(plan, hospitals(), runtime="local").vector))
    True
    """
    names = tuple(clients.names) if isinstance(clients, Population) else tuple(clients)
    if not names:
        raise SettingError("a fleet has at least one client")
    rules = rules or Rules(at_least=len(names), stage_s=timeout_s)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store("memory:")
        try:
            return asyncio.run(_deployed(plan, clients, names, store, Path(folder), seed, rules, drops, timeout_s))
        finally:
            store.close()


async def _deployed(
    plan: Plan, clients: Any, names: tuple[str, ...], store: Store, folder: Path, seed: int, rules: Rules,
    drops: Drops | None, timeout_s: float,
) -> Deployed:  # fmt: skip
    coordinator = Coordinator(store, Blobs(folder), federation="testing")
    await coordinator.start([plan])
    fleet = Fleet(coordinator, plan, {name: clients[name] for name in names}, drops)
    try:
        run = await coordinator.submit(plan, name="run", rules=rules, seed=seed)
        fleet.start()
        view = await asyncio.wait_for(coordinator.until_over(run), timeout_s)
        if view.status != "completed":
            raise RunError(f"the run is {view.status}: {view.reason}")
        return Deployed(await coordinator.state(run), view, fleet.verdicts)
    except TimeoutError:
        raise RunError(f"the run was not over in {timeout_s:g} s: {coordinator.run('run').waits_for}") from None
    finally:
        await fleet.stop()
        await coordinator.stop()


class Fleet:
    """Clients of one plan in this process, each with its own data and its own state."""

    def __init__(
        self, coordinator: Coordinator, plan: Plan, data: Mapping[str, Any], drops: Drops | None = None
    ) -> None:
        self._coordinator, self._plan, self._data = coordinator, plan, data
        self._drops: Drops = drops or (lambda name, round: False)
        self._pool = ThreadPoolExecutor(1, "fleet")  # one after another: models in Python are no thread's own
        self._loops: list[asyncio.Task[None]] = []
        self._keys = {name: new_key() for name in data}
        self._roster = {name: public_key_of(key) for name, key in self._keys.items()}
        self.verdicts: dict[str, int] = {}

    def start(self) -> None:
        """Lets all clients check in, on the running event loop."""
        self._loops = [asyncio.ensure_future(self._live(name)) for name in self._data]

    async def stop(self) -> None:
        """Lets all clients go."""
        while left := [loop for loop in self._loops if not loop.done()]:
            for loop in left:
                loop.cancel()
            await asyncio.wait(left, timeout=0.1)  # Python 3.11 forgets to cancel who is being woken
        self._pool.shutdown()

    async def _live(self, name: str) -> None:
        client = await self._enrolled(name)
        told: set[str] = set()
        states: dict[str | None, Any] = {None: enter(self._plan.algorithm)}
        lost: list[Holding] = []
        while True:
            check_in = CheckIn(holding=tuple(lost), wait_s=25.0)
            orders = _sent(await self._coordinator.check_in(client, _sent(check_in, CheckIn), told=told), Orders)
            lost = [held for held in lost if held.task not in orders.cancelled]
            for task in orders.tasks:
                if self._drops(name, task.round):
                    lost.append(Holding(task=task.task))
                else:
                    await self._turn(client, task, states)
            if orders.wait_s:
                await asyncio.sleep(orders.wait_s)

    async def _enrolled(self, name: str) -> Known:
        """Who a client is; where the server looks at signatures, it knows its key."""
        if not self._plan.algorithm.aggregation.threshold:
            return Known(f"id of {name}", name)
        token = await self._coordinator.token(label=name)
        enroll = Enroll(token=token, name=name, public_key=self._roster[name], signature=bytes(64))  # nobody looks here
        return Known((await self._coordinator.enroll(_sent(enroll, Enroll))).client, name)

    async def _turn(self, client: Known, task: Task, states: dict[str | None, Any]) -> None:
        if task.plan_digest != self._plan.digest():
            await self._coordinator.decline(client, task.task, Declined(reason="policy"))
            return
        algorithm = self._plan.algorithm
        model = task.inline
        if model is None:
            whole = {"offset": 0, "length": task.model.size_bytes}
            model = await asyncio.to_thread(self._coordinator.blobs.read, blob_id(task.model), **whole)
        call, state = call_of(algorithm, model), states[task.state_of]
        turn = (algorithm, call, self._data[client.name], state, Key(*task.key))
        payload, after = await asyncio.get_running_loop().run_in_executor(self._pool, lambda: own_turn(*turn))
        states[task.task] = after
        if task.secure is None:
            await self._report(client, task, pack_payload(payload))
        else:
            with suppress(ServerError):  # the round went on without it
                await self._masked(client, task, payload)
        kept = {None, task.state_of, task.task}
        for old in set(states) - kept:
            del states[old]

    async def _masked(self, client: Known, task: Task, payload: Any) -> None:
        """A client's part in the secure sum of its round."""
        terms = msgspec.msgpack.decode(task.secure or b"", type=Terms)
        session = ClientSession(
            terms, name=client.name, sign=partial(sign, self._keys[client.name]), roster=self._roster,
            demand=Demand(clients=2), entropy=os.urandom(32),
        )  # fmt: skip
        advertised = await self._say(client, task, "advertise", session.advertise())
        inbox = await self._say(client, task, "share", session.share(advertised))
        algorithm = self._plan.algorithm
        form = form_of(
            algorithm.aggregation, algorithm.layout, notes=notes_of(algorithm), clients=len(self._data)
        )  # fmt: skip
        message, body = session.mask(inbox, *to_ring(payload, replace(form, bits=terms.bits)))
        verdict = await self._report(client, task, bytes(body), secure=message)
        if verdict.verdict == "counted":
            survivors = await self._say(client, task, "mask", message)
            confirmations = await self._say(client, task, "confirm", session.confirm(survivors))
            await self._say(client, task, "answer", session.answer(confirmations))

    async def _say(self, client: Known, task: Task, stage: Stage, message: bytes) -> bytes:
        """What follows a stage of a secure sum, however long that takes."""
        step = _sent(SecureStep(stage=stage, message=message, wait_s=20.0), SecureStep)
        while True:
            told = _sent(await self._coordinator.secure(client, task.task, step), SecureNext).message
            if told is not None or stage == "answer":
                return told or b""

    async def _report(self, client: Known, task: Task, data: bytes, secure: bytes | None = None) -> Verdict:
        manifest = manifest_of(data)
        if len(data) <= INLINE_BYTES:
            result = Result(manifest=manifest, inline=data, secure=secure)
        else:
            wanted = await self._coordinator.offer(client, task.task, Upload(manifest=manifest))
            if isinstance(wanted, Missing):
                for part in wanted.parts:
                    begin = part * manifest.part_bytes
                    incoming = self._coordinator.incoming(client, task.task)
                    incoming.put(part, data[begin : begin + manifest.part_bytes])
            result = Result(manifest=manifest, secure=secure)
        verdict = _sent(await self._coordinator.report(client, task.task, _sent(result, Result)), Verdict)
        self.verdicts[verdict.verdict] = self.verdicts.get(verdict.verdict, 0) + 1
        return verdict


def _sent(message: M, kind: type[M]) -> M:
    """A message as it arrives."""
    return decode(encode(message), kind)  # type: ignore[arg-type, type-var]
