"""How far one client can move what is released, step by step, and how much noise there is beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shoal.aggregation import Gaussian, MatrixGaussian, NoisesGrid
from shoal.aggregation.step import Noises, Randomizes
from shoal.plan import Plan
from shoal.steps import AdaptiveClip, Clip, Quantize, Rotate, Round, TopK, Weigh
from shoal.vector import Layout


@dataclass(frozen=True)
class Derived:
    """A step with the bound on one client's L2 norm after it: the `formula` that gives it, and `why` it holds."""

    step: str
    bound: float
    formula: str
    why: str

    def __str__(self) -> str:
        value = f"{self.bound:.6g}"
        return f"{self.step}: {self.formula}{'' if self.formula == value else f' = {value}'}, {self.why}"


@dataclass(frozen=True)
class Derivation:
    """How the sensitivity of a plan's sum comes about, and its noise against its signal.

    `noise` is the standard deviation in each number of the sum, `released` that in what is released, both None where
    none is known; `signal` is one number of a mean that is as long as one client's contribution may be. What is not
    bounded is infinite. A step that adapts makes them multiples of its setting.
    """

    steps: tuple[Derived, ...]
    sensitivity: float
    size: int
    noise: float | None
    released: float | None
    clients: int | None
    source: str
    unit: str = ""

    @property
    def signal(self) -> float:
        """sensitivity / sqrt(size)."""
        return self.sensitivity / math.sqrt(max(self.size, 1))

    def lines(self) -> Iterator[tuple[str, str]]:
        """A word and a text for each line; nothing where no client is bounded."""
        if not math.isfinite(self.sensitivity):
            return
        bounded = [step for step in self.steps if math.isfinite(step.bound)]
        for place, step in enumerate(bounded):
            yield "" if place else "derived", str(step)
        far = f"{self.sensitivity:.6g}{self.unit}"
        replaced = f"{2 * self.sensitivity:.6g}"
        yield "", f"so one client, added or removed, moves the sum by at most {far}; replaced, by {replaced}"
        if self.noise is None or self.released is None:
            if self.source:
                yield "noise", self.source
            return
        yield "noise", f"{self.noise:.6g}{self.unit} in each of {self.size:,} numbers of the sum: {self.source}"
        yield "", f"{self.released:.6g} in each number of what is released, the sum over {self.clients:,} clients"
        times = f"{self.signal / self.released:.4g} times the noise"
        yield "signal", f"{self.signal:.6g} in each number of a mean that is {far} long: {times}"


def derivation(plan: Plan) -> Derivation:
    """How far one client can move a plan's sum, step by step, and the noise beside it. Without a sum it is infinite.

    >>> from shoal import Clip, FedAvg, Gaussian, PlainSum, models
    >>> chain = Clip(1.0) >> PlainSum() >> Gaussian(2.0, clients=100)
    >>> found = derivation(Plan(FedAvg(models.logistic(24), aggregation=chain), rounds=9))
    >>> found.noise, found.released, found.signal
    (2.0, 0.02, 0.2)
    """
    chain, layout = plan.algorithm.aggregation, plan.algorithm.layout
    sensitivity = chain.sensitivity(layout) if chain.meeting.adds else math.inf
    bound, steps = math.inf, list[Derived]()
    for step, after in zip(chain.steps, chain.bounds(layout), strict=True):
        steps.append(Derived(type(step).__name__, after, *_why(step, bound, after, layout)))
        bound, layout = after, step.after(layout)
    noise, source = _noise(chain, sensitivity, layout)
    clients = getattr(chain.finish, "clients", None)
    released = None if noise is None or clients is None else noise / clients
    unit = " times its setting" if chain.adapting is not None else ""
    return Derivation(tuple(steps), sensitivity, layout.size, noise, released, clients, source, unit)


def _why(step: Any, before: float, after: float, layout: Layout) -> tuple[str, str]:
    """The formula of a step's bound, and the reason."""
    same, size = f"{before:.6g}", layout.size
    rounded = f"{same} * (1 + 1e-06)"
    match step:
        case Clip():
            return f"{after:.6g}", "what is longer is scaled down to it"
        case AdaptiveClip():
            return f"{after:.6g}", "in units of the norm it is clipped to, with what it tells about the quantile"
        case Quantize(unit, rounding):
            half = "/ 2 " if rounding == "nearest" else ""
            each = "half a step" if half else "a step"
            return f"{rounded} + {unit:g} {half}* sqrt({size})", f"each of {size:,} numbers is rounded by up to {each}"
        case Round(decimals):
            return f"{rounded} + 1e-{decimals:02d} / 2 * sqrt({size})", f"each of {size:,} numbers is rounded"
        case Rotate():
            return f"{same} * (1 + 1e-05)", "turning keeps a length, but for the rounding of floats"
        case Weigh():
            return same, "weights over the cap are at most 1"
        case TopK():
            return same, "numbers that are left out make nothing longer"
        case Noises() | Randomizes():
            return f"{after:.6g}", "before its noise, which is no client's data"
        case _ if after == before:
            return same, "as before"
        case _:
            return f"{after:.6g}", "as it declares"


def _noise(chain: Any, sensitivity: float, layout: Layout) -> tuple[float | None, str]:
    """The deviation of the noise in each number of a sum, and where it comes from."""
    finish = chain.finish
    if isinstance(finish, Gaussian | NoisesGrid):
        deviation = finish.multiplier * sensitivity
        return deviation, f"{finish.multiplier:g} * {sensitivity:.6g}"
    shared = next((step for step in chain.steps if isinstance(step, Noises)), None)
    if shared is not None:
        each = shared.deviation(sensitivity)
        source = f"sqrt({shared.at_least}) * {each:.6g}, which each of {shared.at_least:,} clients adds; of more, more"
        return math.sqrt(shared.at_least) * each, source
    own = next((step for step in chain.steps if isinstance(step, Randomizes)), None)
    if own is not None:
        each = own.deviation(sensitivity, layout)
        return math.sqrt(
            finish.clients
        ) * each, f"sqrt({finish.clients}) * {each:.6g}, which each client adds to its own"
    if isinstance(finish, MatrixGaussian):
        summed = finish.multiplier * sensitivity * finish.matrix.error
        return None, f"{summed:.6g} in each number of what rounds add up to, on average over them, by {finish.matrix}"
    return None, ""
