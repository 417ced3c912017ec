"""The whole aggregation as a value: it prints, compares, hashes, and computes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Bool

from shoal.aggregation import order
from shoal.aggregation.finish import Correlates, Ends, Finish, NoisesGrid, Robust, Sums, Total
from shoal.aggregation.kinds import Free
from shoal.aggregation.payload import Bag, Memory, Notes, Payload, Update
from shoal.aggregation.step import Adapts, Discretizes, Noises, Randomizes, Remembers, Shortens, Step, Weighs
from shoal.errors import OrderError, SettingError
from shoal.key import Key
from shoal.vector import Array, Layout, Vector, namespace

if TYPE_CHECKING:
    from shoal.aggregation.sums import Meeting


@dataclass(frozen=True)
class Release:
    """What the server learned in a round: the result, the summed notes, and whether there is a result.

    `memory` is what it remembers for the next round, if there is a result.
    """

    value: Vector
    notes: Notes
    clients: Any
    released: Bool[Array, ""]
    memory: Memory = field(default_factory=Memory)


@jax.tree_util.register_static
@dataclass(frozen=True)
class Aggregation:
    """From many clients' contributions to one result: steps on each client, a meeting, a finish.

    Built with `>>`. `encode` runs on a client, `decode` on the server; in between payloads are added.

    >>> from shoal.steps import Clip, Quantize
    >>> from shoal.aggregation.sums import PlainSum
    >>> from shoal.aggregation.finish import Mean
    >>> print(Clip(1.0) >> Quantize(1e-3) >> PlainSum() >> Mean())
    Clip(norm=1.0) >> Quantize(step=0.001, rounding='nearest') >> PlainSum() >> Mean()
    """

    steps: tuple[Step[Any, Any], ...]
    meeting: Meeting
    finish: Finish[Any] | Robust

    def __post_init__(self) -> None:
        self._check_ends()
        kind = order.kind_after(self.steps)
        if not issubclass(kind, self.meeting.takes):
            order.refuse(self.meeting, kind, self.steps)
        if not issubclass(kind, self.finish.takes):
            order.refuse(self.finish, kind, self.steps)
        self._check_parts()
        if sum(isinstance(step, Weighs) for step in self.steps) > 1:
            raise OrderError("a contribution is weighed once: leave one Weigh out")
        if self.adapting is not None:
            self._check_adapting(self.adapting)

    def _check_ends(self) -> None:
        name = type(self.finish).__name__
        if isinstance(self.finish, Robust) and self.meeting.adds:
            raise OrderError(f"{name} looks at each payload, and a sum keeps none: write Collect() >> {name}(...)")
        if isinstance(self.finish, Finish) and not self.meeting.adds:
            raise OrderError(f"{name} finishes a sum, and Collect() makes none: write PlainSum() >> {name}(...)")

    def _check_parts(self) -> None:
        name = type(self.finish).__name__
        if not self.finish.weighted and any(isinstance(step, Weighs) for step in self.steps):
            raise OrderError(f"{name} does not divide by a weight: leave Weigh out, or finish a sum with Mean()")
        for step in self.steps:
            if isinstance(step, Noises) and self.meeting.releases(step.at_least - 1):
                raise OrderError(
                    f"the noise is whole once {step.at_least} clients' shares are in the sum, and this sum is released "
                    f"with fewer: write SecureSum(threshold={step.at_least})"
                )

    def _check_adapting(self, adapting: Adapts[Any, Any]) -> None:
        name, finish, first = type(adapting).__name__, type(self.finish).__name__, self.steps.index(adapting)
        if isinstance(self.finish, Robust | Total):
            raise OrderError(f"{name} learns from a mean, and {finish} gives none: finish a sum with Mean, or use Clip")
        for place, step in enumerate(self.steps):
            other = type(step).__name__
            if place > first and isinstance(step, Adapts):
                raise OrderError(f"a chain adapts once: leave {other} or {name} out")
            if place < first and isinstance(step, Weighs):
                raise OrderError(f"what {name} learns from is weighed like the value: put {other} after {name}")
            # such a step makes something else of a number or leaves it out, and does not know which one is meant
            if place > first and (isinstance(step, Shortens) or (step.gives is not None and Free in step.takes)):
                fix = f"leave {name} out" if isinstance(step, Randomizes) else f"put {other} before {name}"
                raise OrderError(f"{other} would change the number that {name} learns from: {fix}")
        if self.unit > adapting.coarsest:
            raise SettingError(
                f"a grid of {self.unit:g} is too coarse for what {name} learns from, and in units of its setting: use "
                f"a step of at most {adapting.coarsest:.3g}"
            )

    if not TYPE_CHECKING:  # the type checker knows no `>>` here; code without types gets a sentence

        def __rshift__(self, other):
            name = type(other).__name__
            if isinstance(other, Ends):
                raise OrderError(
                    f"{type(self.finish).__name__} has finished this aggregation: {name} takes its place, not the one "
                    "after it, because noise and means are made of the sum and not of each other"
                )
            order.refuse_after_sum(other)

    def __str__(self) -> str:
        return " >> ".join(str(part) for part in (*self.steps, self.meeting, self.finish))

    @property
    def private(self) -> bool:
        """Whether noise protects the sum, so that neither weights nor metrics leave a client."""
        return isinstance(self.finish, Finish) and self.finish.private

    @property
    def local(self) -> bool:
        """Whether each contribution is private by itself before it leaves a client."""
        return any(isinstance(step, Randomizes) for step in self.steps)

    @property
    def threshold(self) -> int:
        """How many contributions a secure sum needs before it shows itself; 0 if the server sees each by itself."""
        return self.meeting.hides

    @property
    def cap(self) -> float:
        """The largest weight of one client: 1, or the cap of `Weigh`."""
        return next((step.cap for step in self.steps if isinstance(step, Weighs)), 1.0)

    def bounds(self, layout: Layout) -> tuple[float, ...]:
        """The L2 norm that one client can have after each step."""
        bounds = [math.inf]
        for step in self.steps:
            bounds.append(step.bound(bounds[-1], layout))
            layout = step.after(layout)
        return tuple(bounds[1:])

    def sent(self, layout: Layout) -> Layout:
        """What a value is made of after all steps."""
        for step in self.steps:
            layout = step.after(layout)
        return layout

    def sensitivity(self, layout: Layout) -> float:
        """How far one client, added or removed, can move the decoded sum in L2 norm; infinite if unbounded.

        In units of the setting, where a step has one that changes from round to round.
        """
        return (math.inf, *self.bounds(layout))[-1]

    def longest(self, layout: Layout) -> float:
        """The L2 norm that the contribution of a client that keeps to the chain has, with what it adds by itself.

        In units of training; without noise for a secure sum, of which nobody sees one.
        """
        before = math.inf
        for step, bound in zip(self.steps, self.bounds(layout), strict=True):
            if isinstance(step, Randomizes):
                return step.longest(before, layout)
            before, layout = bound, step.after(layout)
        return before

    def upload_bytes(self, layout: Layout) -> int:
        """The most bytes that one client's value takes, without headers."""
        sizes = list[int]()
        for step in self.steps:
            sizes.extend([step.upload_bytes(layout)] if isinstance(step, Shortens) else [])
            after = step.after(layout)
            more = after.size_bytes - layout.size_bytes + 4 * (after.size - layout.size)  # numbers and their places
            sizes, layout = [size + more for size in sizes], after
        return min([layout.size_bytes, *sizes])

    def start(self, layout: Layout) -> tuple[Any, ...]:
        """What the steps remember of a client that has not taken part yet."""
        states = list[Any]()
        for step in self.steps:
            states.append(step.start(layout) if isinstance(step, Remembers) else None)
            layout = step.after(layout)
        return tuple(states)

    def begin(self, layout: Layout) -> Memory:
        """What the server remembers before the first round."""
        setting = self.adapting.begin() if self.adapting else None
        noise = self.finish.begin(self.sent(layout)) if isinstance(self.finish, Correlates) else None
        return Memory(setting, noise)

    @property
    def adapting(self) -> Adapts[Any, Any] | None:
        """The step whose setting is another one each round, if there is one."""
        return next((step for step in self.steps if isinstance(step, Adapts)), None)

    def encode(
        self, value: Vector, *, examples: Any, notes: Notes, states: tuple[Any, ...], key: Key, layout: Layout,
        setting: Any = None,
    ) -> tuple[Any, tuple[Any, ...]]:  # fmt: skip
        """On the client: what to send (a Payload, or a Bag for `Collect`), and what the steps remember.

        `setting` is the round's, of a step that adapts; None for that of the first round.
        """
        if value.shape != (layout.size,):  # of another shape it could be broadcast, and be longer than its bound
            raise SettingError(f"a value is a vector of {layout.size:,} numbers, as its layout says, not {value.shape}")
        one = namespace(value).ones((), "float32")
        if setting is None and self.adapting:
            setting = self.adapting.begin()
        update = Update(value, examples, one, {} if self.private else notes, math.inf, layout=layout, setting=setting)
        remembered: list[Any] = []
        for place, (step, state) in enumerate(zip(self.steps, states, strict=True)):
            bound = step.bound(update.bound, layout)
            update, state = step.encode(update, state, key.split(place))  # noqa: PLW2901
            layout = step.after(layout)
            update = replace(update, bound=bound, layout=layout)
            remembered.append(state)
        weight = one * 0 if self.private else update.weight
        clients = namespace(value).ones((), "int32")
        return self.meeting.lift(Payload(update.value, weight, update.notes, clients)), tuple(remembered)

    def decode(self, total: Payload | Bag, *, key: Key, layout: Layout, memory: Memory | None = None) -> Release:
        """On the server: the result of a round from its payloads. Not released if too few took part.

        `memory` is what earlier rounds left; None before the first.
        """
        xp = namespace(total.value)
        memory = self.begin(layout) if memory is None else memory
        value, adapting = self._noised(total.value, key, layout), self.adapting
        first = self.steps.index(adapting) if adapting else 0
        for step in reversed(self.steps[first:]):
            value = step.decode(value)
        clients = xp.sum(total.clients)
        released = xp.logical_and(self.meeting.releases(clients), xp.asarray(True))
        if isinstance(self.finish, Robust):
            result = self.finish.combine(value, total.clients > 0)
        else:
            weight = xp.asarray(total.weight, "float32") / np.float32(self.cap)
            sums = Sums(value, weight, clients, self.sensitivity(layout))
            if isinstance(self.finish, Correlates):
                result, noise = self.finish.follow(sums, key, memory.noise)
                memory = replace(memory, noise=noise)
            else:
                result = self.finish.finish(sums, key)
        if isinstance(self.finish, Robust) or self.finish.needs_clients:
            released = xp.logical_and(released, clients > 0)
        notes = total.notes
        if adapting:
            notes = {**notes, adapting.setting_name: xp.asarray([memory.setting, 1], "float32")}
            result, setting = adapting.settle(result, memory.setting)
            memory = replace(memory, setting=setting)
        for step in reversed(self.steps[:first]):  # those before it are in units of training
            result = step.decode(result)
        return Release(result, notes, clients, released, memory)

    def _noised(self, value: Vector, key: Key, layout: Layout) -> Vector:
        """The sum with the integer noise of the finish, if it adds any."""
        if not isinstance(self.finish, NoisesGrid):
            return value
        return value + self.finish.draw(key, self.finish.deviation(self.sensitivity(layout)) / self.unit, value)

    @property
    def unit(self) -> float:
        """What an integer of the sum is worth; 0 if there is no grid."""
        return next((step.unit for step in self.steps if isinstance(step, Discretizes)), 0.0)

    def check(self, layout: Layout, clients: int) -> None:
        """SettingError if so many clients are too few to be released, or so many that 32-bit integers overflow."""
        if not self.meeting.releases(clients):
            raise SettingError(f"{self.meeting} would never be released: a round has at most {clients} clients")
        unit, bound = self.unit, self.sensitivity(layout)
        noise = sum(step.deviation(bound) for step in self.steps if isinstance(step, Noises))
        drawn = self.finish.deviation(bound) if isinstance(self.finish, NoisesGrid) else 0.0
        reach = bound * clients + 8 * (noise * math.sqrt(clients) + drawn)
        if unit and reach / unit >= 2**31:
            raise SettingError(
                f"a sum of {clients} clients of norm {bound:g} on a grid of {unit:g} needs more than 32 bits: "
                f"use a step of at least {reach / 2**31:.1g}, or clip lower"
            )
