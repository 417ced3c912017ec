"""Secure sums in a simulation: the same integers without masks, or the whole protocol, with clients that drop out."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np

from shoal.aggregation import Aggregation, Bag, Payload
from shoal.algorithms import Algorithm, Run, open_round
from shoal.algorithms.moves import Meet, Met, add_up
from shoal.describe import digest
from shoal.errors import SecureSumError, SettingError
from shoal.key import Key
from shoal.secure.contribution import Form, form_of, from_ring, to_ring
from shoal.secure.parameters import shape
from shoal.secure.rehearsal import STAGES, Stage, rehearse, secret
from shoal.secure.ring import Ring
from shoal.secure.terms import CORRUPT, Terms
from shoal.settings import number, settle
from shoal.vector import Layout

Payloads = Iterable[tuple[str, Payload | Bag]]


@dataclass(frozen=True)
class Rehearsal:
    """Probabilities with which clients drop out of secure sums that a simulation runs in full.

    Each is that of a client that is still there, before it does what the stage is named after: advertises its keys,
    shares its secrets, sends its masked contribution, confirms whose are in the sum, answers with shares. A
    contribution is in the sum if its client drops out in none of the first three.

    >>> Rehearsal(mask=0.1, answer=0.05)
    Rehearsal(advertise=0.0, share=0.0, mask=0.1, confirm=0.0, answer=0.05)
    """

    advertise: float = 0.0
    share: float = 0.0
    mask: float = 0.0
    confirm: float = 0.0
    answer: float = 0.0

    def __post_init__(self) -> None:
        for stage in fields(self):
            rule = f"{stage.name} is a probability of at least 0 and under 1"
            settle(self, **{stage.name: number(getattr(self, stage.name), rule, lambda v: 0 <= v < 1)})

    def gone(self, clients: Iterable[str], key: Key) -> dict[str, Stage]:
        """Who drops out of a round, and the stage before which; a client's fate depends on no other's."""
        chances = np.array([getattr(self, stage) for stage in STAGES])
        fates = {name: key.split("drop-out", name).generator().random(len(STAGES)) < chances for name in clients}
        return {name: STAGES[int(drops.argmax())] for name, drops in fates.items() if drops.any()}


def unmasked(run: Run[Any], *, layout: Layout, clients: int) -> Meet:
    """How the payloads of a round are added if nobody rehearses: a secure sum's as the integers that would be masked.

    `clients` is how many the round has.
    """
    if not run.aggregation.threshold:
        return add_up

    def meet(payloads: Payloads) -> Met:
        integers = _Integers(run.aggregation, layout, clients)
        names: list[str] = []
        total: tuple[Ring, Ring] | None = None
        for name, (value, slots) in integers.of(payloads):
            total = (value, slots) if total is None else (total[0] + value, total[1] + slots)
            names.append(name)
        return integers.met(total, names)

    return meet


class Protocol:
    """Secure sums in full, of a run of an algorithm: the keys of clients and server come from the run's `key`.

    SettingError if the sums of rounds of as many as `most` clients could not be secure.
    """

    def __init__(self, algorithm: Algorithm[Any, Any, Any], rehearsal: Rehearsal, *, key: Key, most: int) -> None:
        self._algorithm, self._rehearsal, self._key = algorithm, rehearsal, key
        self._plan = bytes.fromhex(digest(algorithm))
        try:
            shape(most, threshold=algorithm.aggregation.threshold, corrupt=CORRUPT)
        except SecureSumError as error:
            raise SettingError(f"{error}") from None

    def __str__(self) -> str:
        return f"{self._rehearsal}"

    def meet(self, run: Run[Any], *, layout: Layout, clients: int) -> Meet:
        """How the payloads of a round are added. A client that drops out before its contribution is sent is lost."""
        number = int(run.round)
        key = self._key.split("round", number).split("secure")

        def meet(payloads: Payloads) -> Met:
            integers = _Integers(run.aggregation, layout, clients)
            contributions = dict(integers.of(payloads))
            threshold = run.aggregation.threshold
            if len(contributions) < threshold:
                few = f"a secure sum of at least {threshold} clients was begun by {len(contributions)}"
                return integers.met(None, (), stopped=few if contributions else None)
            dropped = self._rehearsal.gone(contributions, key)
            silent = [name for name, (_, slots) in contributions.items() if not slots[0]]
            gone = dict(dropped)
            for name in silent:
                if gone.get(name) not in STAGES[:2]:
                    gone[name] = "mask"  # zeros would count towards the threshold and hide nobody
            entropy = key.split("entropy").generator().bytes(32)
            terms = self._terms(run, integers.form, threshold, secret(entropy, "terms"))
            done = rehearse(terms, contributions, entropy=entropy, gone=gone)
            lost = sum(stage in STAGES[:3] for stage in dropped.values())
            if done.sum is None:
                return integers.met(None, (), lost=lost, stopped=f"{done.stopped}")
            return integers.met((done.sum.value, done.sum.slots), done.sum.clients, lost=lost)

        return meet

    def _terms(self, run: Run[Any], form: Form, threshold: int, session: bytes) -> Terms:
        model = hashlib.sha256()
        for leaf in jax.tree.leaves(open_round(self._algorithm, run).message):
            model.update(np.ascontiguousarray(leaf).tobytes())
        return Terms(
            federation="simulation", run="simulation", session=session, round=int(run.round), attempt=0,
            model=model.digest(), plan=self._plan, size=form.size, bits=form.bits, slots=form.slots,
            threshold=threshold,
        )  # fmt: skip


class _Integers:
    """The payloads of one round as integers, and their sum as a payload again. All have the notes of the first one."""

    def __init__(self, aggregation: Aggregation, layout: Layout, clients: int) -> None:
        self._aggregation, self._layout, self._clients = aggregation, layout, clients
        self._form: Form | None = None
        self._refused: dict[str, str] = {}

    @property
    def form(self) -> Form:
        """What a contribution looks like."""
        assert self._form is not None, "there was a payload"
        return self._form

    def of(self, payloads: Payloads) -> Iterator[tuple[str, tuple[Ring, Ring]]]:
        """The entries and slots of each payload that is as the plan declares, by its client's name."""
        for name, payload in payloads:
            assert isinstance(payload, Payload), "only Collect makes bags"
            if self._form is None:
                notes = {note: np.size(numbers) for note, numbers in payload.notes.items()}
                self._form = form_of(self._aggregation, self._layout, notes=notes, clients=self._clients)
            try:
                integers = to_ring(payload, self._form)
            except SecureSumError as error:
                self._refused[name] = f"{name!r}: {error}"
            else:
                yield name, integers

    def met(
        self, total: tuple[Ring, Ring] | None, clients: Collection[str], *, lost: int = 0, stopped: str | None = None
    ) -> Met:
        """The payload that a sum is, and what is told of it."""
        payload = None if total is None else from_ring(*total, self.form)
        return Met(payload, clients, self._refused, lost, stopped)
