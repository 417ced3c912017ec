"""How the rounds of a run are opened, waited for and closed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from shoal.cohort import Fixed, Fraction, Poisson, Rotation, Sampler
from shoal.errors import SettingError, UnsupportedError
from shoal.settings import number, settle, whole


@dataclass(frozen=True)
class Rules:
    """The times and numbers of a run's rounds.

    A round opens when `wait_for` clients are there (by default as many as a fixed cohort has, or as make a cohort of
    `at_least`), or after `patience_s` with `at_least` of them; with fewer the run is paused. Its cohort is drawn from
    those that are there, and `over_selection` times as many are asked; others are asked in the place of those whose
    task came to nothing. It closes when as many contributions are counted as the cohort has clients, or with at least
    `at_least` of them at `deadline_s` or when no more can come; with fewer it is abandoned at `deadline_s`, or when
    no more can come and enough are there for another attempt, and tried again, at most `retries` times in a row.

    In a round with a secure sum, its clients have `stage_s` for each message of the protocol: those who advertise no
    keys, or do not share their secrets, are left out of the round, and one who is silent later is done without.

    With `buffer` there are no rounds to wait for (FedBuff, Nguyen et al. 2022, algorithm 1): up to `concurrency`
    clients train at any time, each from the model of when it began and for at most `deadline_s`, and the server's
    model changes whenever `buffer` contributions, of as many clients, are counted. One that began s models ago counts
    by 1 / sqrt(1 + s), and not at all beyond `most_stale`.

    >>> Rules(at_least=3, wait_for=4).asked(4), Rules(over_selection=1.3).asked(10)
    (4, 13)
    """

    at_least: int = 1
    wait_for: int | None = None
    over_selection: float = 1.0
    deadline_s: float = 3600.0
    patience_s: float = 86_400.0
    retries: int = 3
    stage_s: float = 30.0
    buffer: int | None = None
    concurrency: int = 100
    most_stale: int = 10

    def __post_init__(self) -> None:
        at_least = whole(self.at_least, "at_least is a number of clients, at least one", least=1)
        settle(self, at_least=at_least)
        if self.wait_for is not None:
            settle(
                self, wait_for=whole(self.wait_for, "wait_for is a number of clients, at_least or more", least=at_least)
            )
        rule = "over_selection is a factor from 1 to 10"
        settle(self, over_selection=number(self.over_selection, rule, lambda v: 1 <= v <= 10))
        for name in ("deadline_s", "patience_s", "stage_s"):
            positive = f"{name} is a number of seconds over 0"
            settle(self, **{name: number(getattr(self, name), positive, lambda v: v > 0)})
        settle(self, retries=whole(self.retries, "retries is a number of rounds, 0 or more", least=0))
        if self.buffer is not None:
            rule = "buffer is a number of contributions, at_least or more"
            settle(self, buffer=whole(self.buffer, rule, least=at_least))
        settle(self, concurrency=whole(self.concurrency, "concurrency is a number of clients, at least one", least=1))
        settle(self, most_stale=whole(self.most_stale, "most_stale is a number of models, 0 or more", least=0))

    def check(self, sampler: Sampler) -> None:
        """SettingError if a round's cohort never has `at_least` clients, UnsupportedError if clients take turns."""
        if isinstance(sampler, Rotation):
            raise UnsupportedError(
                f"a server asks whoever is there and does not keep clients {sampler.separation} rounds apart yet: "
                "simulate this plan, or ask for a number of clients"
            )
        if isinstance(sampler, Fixed) and sampler.clients < self.at_least:
            raise SettingError(
                f"a cohort of {sampler.clients} clients never has the {self.at_least} of at_least: ask for a larger "
                "cohort, or for a smaller at_least"
            )

    def opens_with(self, sampler: Sampler) -> int:
        """How many clients must be there before a round opens without losing patience."""
        if self.wait_for is not None:
            return self.wait_for
        match sampler:
            case Fixed(clients):
                return max(self.at_least, clients)
            case Fraction(rate) | Poisson(rate) if self.at_least > 1:
                return math.ceil(self.at_least / rate)
            case _:
                return self.at_least

    def asked(self, cohort: int) -> int:
        """How many clients are asked for a cohort of a size."""
        return math.ceil(cohort * self.over_selection - 1e-9)


def staleness_weight(models_behind: int) -> float:
    """What a contribution counts that began some models ago: 1 / sqrt(1 + s) (Nguyen et al. 2022, section 5.2).

    >>> staleness_weight(0), staleness_weight(3)
    (1.0, 0.5)
    """
    return 1 / math.sqrt(1 + models_behind)
