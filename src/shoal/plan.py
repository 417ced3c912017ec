"""The plan: everything that decides meaning and privacy, as a value that exists before anything runs.

It prints, so that a person can read it; it has a digest, so that a site can approve it and refuse another.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from shoal.aggregation import Adapts, Correlates
from shoal.algorithms import Algorithm
from shoal.cohort import Everyone, Fixed, Fraction, Poisson, Rotation, Sampler, sampler, separation
from shoal.describe import Description, describe
from shoal.errors import SettingError
from shoal.schema import Schema
from shoal.settings import settle, whole


@dataclass(frozen=True)
class Plan:
    """An algorithm and its schedule: how many rounds, and who takes part in each.

    `cohort` is a number of clients, a fraction of the population (a float), a sampler such as `Poisson(0.01)`,
    or None for everyone. A round in which fewer than `min_clients` can take part waits for them (see
    `shoal.Availability`) and then fails. `data` is what the plan expects of the tables at the sites, a `Schema`; a
    simulation is given its data ready.

    >>> from shoal import models
    >>> from shoal.algorithms import FedAvg
    >>> plan = Plan(FedAvg(models.logistic(13)), rounds=10, cohort=4)
    >>> plan.digest() == Plan(FedAvg(models.logistic(13)), rounds=10, cohort=4).digest()
    True
    """

    algorithm: Algorithm[Any, Any, Any]
    rounds: int
    cohort: Any = None
    min_clients: int = field(default=0, kw_only=True)
    data: Schema | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not hasattr(self.algorithm, "local") or not hasattr(self.algorithm, "aggregation"):
            name = type(self.algorithm).__name__
            raise SettingError(f"a plan begins with an algorithm, such as FedAvg(model), not with a {name}")
        settle(self, rounds=whole(self.rounds, "a plan has at least one round", least=1), cohort=sampler(self.cohort))
        settle(
            self, min_clients=whole(self.min_clients, "min_clients is a number of clients, 0 for no minimum", least=0)
        )
        finish = self.algorithm.aggregation.finish
        if isinstance(finish, Correlates):
            finish.check_schedule(rounds=self.rounds, separation=separation(self.sampler))
        if self.data is not None and not isinstance(self.data, Schema):
            raise SettingError(f"data is a Schema, such as Schema(['age'], 'ill'), not a {type(self.data).__name__}")
        most = getattr(self.algorithm, "most_rounds", None)
        if most is not None and self.rounds > most:
            raise SettingError(
                f"a model made of counts is complete after one round, and would count every example again in the "
                f"next: rounds=1, not {self.rounds}"
            )

    @property
    def sampler(self) -> Sampler:
        """Who takes part in a round."""
        return self.cohort

    def check(self, population: int) -> None:
        """SettingError if the cohort does not fit the population or the minimum, or its sum could overflow."""
        most = self.sampler.most(population)
        if self.min_clients > most:
            raise SettingError(f"a round of at most {most} clients never has the {self.min_clients} of min_clients")
        self.algorithm.aggregation.check(self.algorithm.layout, most)

    def describe(self) -> Description:
        """The plan as plain data."""
        work = describe(self.algorithm)
        data = {} if self.data is None else {"data": describe(self.data)}
        return {"rounds": self.rounds, "cohort": describe(self.cohort), "min_clients": self.min_clients,
                "algorithm": work, "layout": self.algorithm.layout.digest(), **data}  # fmt: skip

    def digest(self) -> str:
        """SHA-256 of the description, in hexadecimal. Equal plans have equal digests on every machine."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(json.dumps(self.describe(), sort_keys=True).encode()).hexdigest()

    def __str__(self) -> str:
        return "\n".join(f"{name:<12}{text}".rstrip() for name, text in self._lines())

    def _lines(self) -> Iterator[tuple[str, str]]:
        algorithm, layout = self.algorithm, self.algorithm.layout
        aggregation = algorithm.aggregation
        yield "plan", self.digest()[:16]
        least = f", at least {self.min_clients}" if self.min_clients else ""
        yield "rounds", f"{self.rounds}, {_who(self.sampler)}{least}"
        yield "work", _settings(algorithm)
        if hasattr(algorithm, "model"):
            yield "model", f"{vars(algorithm)['model']}"
        if self.data is not None:
            for place, line in enumerate(self.data.lines()):
                yield "" if place else "data", line
        yield "vector", f"{layout.size:,} numbers of {layout.dtype}, {layout.size_bytes:,} bytes"
        yield "client", "its own result" if aggregation.steps else "its own result, as it is"
        times = ""
        for step, bound in zip(aggregation.steps, aggregation.bounds(layout), strict=True):
            times = f" times the {step.setting_name} of the round" if isinstance(step, Adapts) else times
            yield "", f">> {step}{'' if math.isinf(bound) else f'    norm at most {bound:.6g}{times}'}"
        yield "meeting", f"{aggregation.meeting}"
        yield "finish", f"{aggregation.finish}"
        reach = aggregation.sensitivity(layout)
        yield (
            "one client",
            "moves the sum without limit" if math.isinf(reach) else f"moves the sum by at most {reach:.6g}{times}",
        )
        beside = "and nothing else" if aggregation.private else "a weight, and sums of its metrics"
        yield "leaves", f"at most {aggregation.upload_bytes(layout):,} bytes of the value, {beside}"


def _who(cohort: Sampler) -> str:
    match cohort:
        case Everyone():
            return "everyone in each"
        case Fixed(clients):
            return f"{clients} clients in each"
        case Fraction(fraction):
            return f"{fraction:.4g} of the clients in each"
        case Poisson(rate):
            return f"each client with probability {rate:.4g} in each"
        case Rotation(clients, apart):
            return f"{clients} clients in each, none of them again within {apart}"
        case _:
            return f"{cohort} in each"


def _settings(algorithm: Any) -> str:
    """The algorithm's own settings that are not the default, without the parts that have their own line."""
    shown = [
        f"{f.name}={getattr(algorithm, f.name)}"
        for f in fields(algorithm)
        if f.name not in ("model", "aggregation", "vector") and getattr(algorithm, f.name) is not None
    ]
    return f"{type(algorithm).__name__}({', '.join(shown)})"
