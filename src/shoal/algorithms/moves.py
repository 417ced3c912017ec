"""A round is three moves, and these are they.

A runtime decides only who makes the middle one, where, and how payloads are added. All three are pure: state
in, state out, randomness by key; they run in plain Python, and traced inside a compiled call.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from shoal.aggregation import Bag, Memory, Payload
from shoal.algorithms.protocol import Algorithm, Call, ClientState, Local, Report, Run
from shoal.examples import Examples
from shoal.key import Key
from shoal.vector import is_finite, namespace

S = TypeVar("S")
B = TypeVar("B")
D = TypeVar("D")
T = TypeVar("T")


Turn = Callable[..., tuple[Any, ClientState]]


@dataclass(frozen=True)
class Met:
    """What payloads add up to, None if to nothing; and whose are in it.

    `refused` says of others why theirs was not what the plan declares. `lost` is how many left on the way, and
    `stopped` a sentence if the sum was given up.
    """

    total: Payload | Bag | None
    clients: Collection[str]
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    lost: int = 0
    stopped: str | None = None


Meet = Callable[[Iterable[tuple[str, Payload | Bag]]], Met]


@dataclass(frozen=True)
class Round(Generic[S]):
    """A round that ran: what the server holds after it, what each client of it holds, and what is told.

    `rejected` names the clients whose contribution was not finite, or not what the plan declares.
    """

    run: Run[S]
    states: Mapping[str, ClientState]
    report: Report
    rejected: tuple[str, ...]
    met: Met


def start(algorithm: Algorithm[S, B, D], key: Key) -> Run[S]:
    """The run before its first round."""
    memory = algorithm.aggregation.begin(algorithm.layout)
    return Run(algorithm.init(key.split("init")), algorithm.aggregation, np.int32(0), memory)


def enter(algorithm: Algorithm[S, B, D]) -> ClientState:
    """The state of a client before its first round."""
    return ClientState(algorithm.enter(), algorithm.aggregation.start(algorithm.layout))


def open_round(algorithm: Algorithm[S, B, D], run: Run[S]) -> Call[B]:
    """What every client of the next round is sent."""
    return Call(algorithm.broadcast(run.state, run.round), run.aggregation, run.round, run.memory.setting)


def client_turn(
    algorithm: Algorithm[S, B, D], call: Call[B], data: D, state: ClientState, key: Key
) -> tuple[Payload | Bag, ClientState]:
    """A client's work and what it sends.

    A client whose data or whose result is not finite contributes nothing: it sends zeros that count for no
    client, keeps its old state, and the round goes on. Where contributions are private by themselves, it sends zeros
    made private like any other: that its data was not usable is nobody's to know.
    """
    local = algorithm.local(call.message, data, state.algorithm, key.split("local"))
    usable = _is_usable(local, data)
    value = choose(usable, local.value, namespace(local.value).zeros_like(local.value))
    payload, steps = call.aggregation.encode(
        value,
        examples=local.examples,
        notes=local.metrics,
        states=state.steps,
        key=key.split("encode"),
        layout=algorithm.layout,
        setting=call.setting,
    )
    remembered = ClientState(local.client_state, steps)
    sent = payload if call.aggregation.local else choose(usable, payload, _nothing(payload))
    return sent, choose(usable, remembered, state)


def close_round(algorithm: Algorithm[S, B, D], run: Run[S], total: Payload | Bag, key: Key) -> tuple[Run[S], Report]:
    """The run after a round, from the sum of its payloads.

    A round that releases nothing (no contribution, or fewer than the threshold) is counted and changes
    nothing else: its clients keep the states they had.
    """
    release = run.aggregation.decode(total, key=key, layout=algorithm.layout, memory=run.memory)
    after = algorithm.update(run.state, release.value, run.round), release.memory.setting
    state, setting = choose(release.released, after, (run.state, run.memory.setting))
    memory = Memory(setting, release.memory.noise)  # a round has its noise whether or not it releases anything
    closed = Run(state, run.aggregation, run.round + 1, memory)
    return closed, Report(release.clients, release.notes, release.released)


def add_up(payloads: Iterable[tuple[str, Payload | Bag]]) -> Met:
    """The sum of all payloads."""
    total: Any = None
    names: list[str] = []
    for name, payload in payloads:
        total = payload if total is None else total + payload
        names.append(name)
    return Met(total, names)


def run_round(
    algorithm: Algorithm[S, B, D],
    run: Run[S],
    clients: Mapping[str, D],
    states: Mapping[str, ClientState],
    key: Key,
    turn: Turn = client_turn,
    meet: Meet = add_up,
) -> Round[S]:
    """One whole round in this process, client after client: the specification of every runtime.

    `turn` is `client_turn`, or the same function compiled. `meet` adds payloads up as they come; a client whose
    payload it leaves out keeps its old state.
    """
    call = open_round(algorithm, run)
    after: dict[str, ClientState] = {}
    rejected: list[str] = []

    def payloads() -> Iterator[tuple[str, Payload | Bag]]:
        for name, data in clients.items():
            payload, after[name] = turn(algorithm, call, data, states[name], key.split("client", name))
            if not np.any(payload.clients):
                rejected.append(name)
            yield name, payload

    met = meet(payloads())
    total = silence(algorithm, call) if met.total is None else met.total
    closed, report = close_round(algorithm, run, total, key.split("server"))
    counted = frozenset(met.clients) if report.released else frozenset[str]()
    kept = {name: state if name in counted else states[name] for name, state in after.items()}
    return Round(closed, kept, report, (*rejected, *met.refused), met)


def silence(algorithm: Algorithm[S, B, D], call: Call[B]) -> Payload | Bag:
    """What a round without a client adds up to: a payload of nothing, from nobody. Noise may still be added."""
    layout = algorithm.layout
    payload, _ = call.aggregation.encode(
        np.zeros(layout.size, layout.dtype), examples=0, notes={}, states=call.aggregation.start(layout),
        key=Key.from_seed(0), layout=layout,
    )  # fmt: skip
    return _nothing(payload)


def choose(flag: Any, yes: T, no: T) -> T:
    """One of two trees of arrays by a flag that may be traced."""
    if _is_known(flag):
        return yes if flag else no
    return jax.tree.map(lambda a, b: jnp.where(flag, a, b), yes, no)


def _is_known(flag: Any) -> bool:
    return isinstance(flag, bool | np.bool_)


def _nothing(payload: Payload | Bag) -> Payload | Bag:
    return jax.tree.map(lambda part: namespace(part).zeros_like(part), payload)


def _is_usable(local: Local, data: Any) -> Any:
    usable = is_finite(local.value)
    for measured in local.metrics.values():
        usable = namespace(local.value).logical_and(usable, is_finite(measured))
    if isinstance(data, Examples):
        xp = namespace(local.value)
        usable = xp.logical_and(usable, xp.logical_and(data.usable, data.count > 0))
    return usable
