"""A round's sum while it grows, and the look at each contribution before it counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from shoal.aggregation import Bag, Payload
from shoal.algorithms import Algorithm
from shoal.errors import ServerError, WireError
from shoal.rounds.events import Effect, Issued, Opened, Settled
from shoal.server.closing import Model
from shoal.server.folding import Total, side_by_side
from shoal.server.records import Record, manifest_of_row
from shoal.server.services import Services
from shoal.store.blob_store import BlobStore
from shoal.store.store import Row, Write
from shoal.wire.blobs import blob_id, raw_chunks
from shoal.wire.messages import Manifest, Result, SecureNext, SecureStep
from shoal.wire.payloads import PayloadCheck
from shoal.wire.tensors import Schema

CHUNK_BYTES = 1 << 18
"""Small enough to stay in a processor's cache from the disk to the sum."""

Work = Algorithm[Any, Any, Any]
Given = Sequence[tuple[str, Manifest, float]]
"""Tasks with the manifest of their contribution and its weight of staleness."""


def chunks(blobs: BlobStore, manifest: Manifest) -> Iterator[bytes]:
    """A blob's bytes, decoded, a piece at a time."""
    with blobs.open(blob_id(manifest)) as file:
        yield from raw_chunks(iter(lambda: file.read(CHUNK_BYTES), b""), manifest)


def check(algorithm: Work, schema: Schema, blobs: BlobStore, manifest: Manifest) -> int:
    """For how many clients a contribution counts: 1, or 0; WireError if it is not what this algorithm's clients
    send."""
    looked = PayloadCheck(algorithm, schema)
    for chunk in chunks(blobs, manifest):
        looked.feed(chunk)
    looked.finish()
    return looked.clients


class RoundSum:
    """Adds contributions as they come, on a thread, in the order of their positions: so the sum does not depend on
    who was fast, and is the one of a simulation. One that comes before its turn waits on the disk."""

    def __init__(self, services: Services, algorithm: Work, schema: Schema) -> None:
        self._services, self._schema = services, schema
        self._adds = algorithm.aggregation.meeting.adds
        self._total = Total(schema)
        self._folded: list[str] = []
        self._turn = 0
        self._known: dict[int, tuple[str, Manifest] | None] = {}
        self._one = asyncio.Lock()

    async def settled(self, position: int, counted: tuple[str, Manifest] | None) -> None:
        """What became of the task at a position: counted, or None for one that never will be."""
        if not self._adds:
            return
        self._known[position] = counted
        async with self._one:
            while self._turn in self._known:
                known = self._known.pop(self._turn)
                if known is not None:
                    await self._add(*known, 1.0)
                self._turn += 1

    async def of(self, given: Given) -> Payload | Bag | None:
        """The sum of these contributions in this order, and of no others; None if there are none."""
        if not given:
            return None
        if not self._adds:
            blobs = self._services.blobs
            whole = (b"".join(chunks(blobs, manifest)) for _, manifest, _ in given)
            return await self._services.move(side_by_side, self._schema, whole)
        async with self._one:
            if self._folded != [task for task, _, _ in given[: len(self._folded)]]:  # never but after a failure
                self._total, self._folded = Total(self._schema), []
            for task, manifest, scale in given:
                await self._add(task, manifest, scale)
            return self._total.payload()

    async def _add(self, task: str, manifest: Manifest, scale: float) -> None:
        if task in self._folded:
            return
        blobs = self._services.blobs
        try:
            await self._services.move(lambda: self._total.add(chunks(blobs, manifest), scale))
        except BaseException:  # part of it may be in the sum: begin again
            self._total, self._folded = Total(self._schema), []
            raise
        self._folded.append(task)


class PlainSums:
    """The sums of a run whose server sees contributions one by one."""

    def __init__(
        self, services: Services, algorithm: Work, schema: Schema, *, buffered: bool,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:  # fmt: skip
        self._services, self._algorithm, self._schema = services, algorithm, schema
        self._buffered, self._spawn = buffered, spawn
        self._sum = self._new()

    @property
    def most_bytes(self) -> int:
        """The largest result."""
        return self._schema.most_bytes

    async def look(self, client: str, message: Result) -> None:
        """WireError if a result, whose blob is there, is not to count."""
        services = self._services
        if not await services.move(check, self._algorithm, self._schema, services.blobs, message.manifest):
            raise WireError("it counts for no client: the data or the training were not finite")

    def durable(self, effect: Effect, counted: Manifest | None) -> None:
        """Adds a contribution to the round's sum as soon as its turn comes."""
        match effect:
            case Opened():
                self._sum = self._new()
            case Settled(task) if not self._buffered:
                known = None if counted is None else (task, counted)
                self._spawn(self._sum.settled(int(task.rpartition("-")[2]), known))
            case _:
                pass

    async def total(self, rows: Sequence[Row]) -> Payload | Bag | None:
        """The sum of the contributions in rows of tasks, in this order; None if there are none."""
        return await self._sum.of([(row["id"], manifest_of_row(row), row["scale"]) for row in rows])

    def ended(self, error: ServerError | None = None) -> None:
        """The round is over, or the run is built anew."""
        self._sum = self._new()

    async def prepare(self, model: Model, sent: Manifest) -> None:
        """Nothing: contributions are not bound to what clients were sent."""

    async def restore(self, record: Record) -> None:
        """Nothing: contributions are added up again as they are told."""

    def go_on(self) -> None:
        """Nothing: nobody waits for others."""

    def follow(self, effect: Effect, *, sent: Manifest) -> list[Write]:
        """Nothing: a contribution's row says all of it."""
        return []

    def issued(self, effect: Issued) -> None:
        """Nothing: a task has no terms."""

    def forgotten(self, round: int) -> list[Write]:
        """Nothing."""
        return []

    def waits_for(self) -> tuple[str, ...]:
        """Nobody: what is counted is added up."""
        return ()

    def answer_all(self) -> None:
        """Nobody waits."""

    async def step(self, client: str, task: str, message: SecureStep) -> SecureNext:
        """ServerError: this run has no secure sum."""
        raise ServerError("this run has no secure sum", code="secure-over")

    def _new(self) -> RoundSum:
        return RoundSum(self._services, self._algorithm, self._schema)
