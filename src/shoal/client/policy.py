"""What a data owner allows: a TOML file, read before each task, and a pure function that says yes or no.

It fails closed: what cannot be judged is refused, and so is everything while the file cannot be read.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shoal.client.checks import DAYS, allowed, days, flag, fraction, more_than_zero, probability, some, window
from shoal.errors import MissingExtraError, PolicyError, SettingError
from shoal.secure.terms import Demand
from shoal.settings import settle
from shoal.wire.messages import RunInfo

if TYPE_CHECKING:
    from shoal.plan import Plan

SECTIONS: Mapping[str, Mapping[str, Callable[[str, Any], Any]]] = {
    "plans": {"allow": allowed, "require_study_file": flag},
    "privacy": {
        "minimum_cohort": some, "clip_required": flag, "secure_sum": flag, "minimum_threshold": fraction,
        "minimum_noise_multiplier": more_than_zero, "maximum_epsilon": more_than_zero, "epsilon_delta": probability,
    },
    "limits": {
        "rounds_a_day": some, "runs": some, "hours": window, "days": days, "maximum_upload_bytes": some,
        "maximum_upload_bytes_a_day": some, "maximum_seconds": more_than_zero,
    },
}  # fmt: skip
"""The keys of a policy by section of its file, and what checks them."""


@dataclass(frozen=True)
class Policy:
    """What a site allows. Without further words it allows no plan; `Policy.sample()` explains each key.

    >>> Policy(allow=["heart-*"], minimum_cohort=3).minimum_cohort
    3
    """

    allow: Literal["any"] | Sequence[str] = ()
    require_study_file: bool = field(default=False, kw_only=True)
    minimum_cohort: int = field(default=0, kw_only=True)
    clip_required: bool = field(default=False, kw_only=True)
    secure_sum: bool = field(default=False, kw_only=True)
    minimum_threshold: float | None = field(default=None, kw_only=True)
    minimum_noise_multiplier: float | None = field(default=None, kw_only=True)
    maximum_epsilon: float | None = field(default=None, kw_only=True)
    epsilon_delta: float = field(default=1e-6, kw_only=True)
    rounds_a_day: int | None = field(default=None, kw_only=True)
    runs: int | None = field(default=None, kw_only=True)
    hours: str | None = field(default=None, kw_only=True)
    days: tuple[str, ...] | None = field(default=None, kw_only=True)
    maximum_upload_bytes: int | None = field(default=None, kw_only=True)
    maximum_upload_bytes_a_day: int | None = field(default=None, kw_only=True)
    maximum_seconds: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        for keys in SECTIONS.values():
            for name, check in keys.items():
                if getattr(self, name) is not None:
                    settle(self, **{name: check(name, getattr(self, name))})

    @staticmethod
    def load(path: str | Path) -> Policy:
        """The policy of a file; PolicyError, with the key and what is allowed there, if it is none."""
        try:
            with Path(path).open("rb") as file:
                return Policy(**_keys(tomllib.load(file)))
        except OSError as error:
            raise PolicyError(f"the policy {path} cannot be read: {error.strerror or error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PolicyError(f"the policy {path} is no TOML file: {error}") from error
        except SettingError as error:
            raise PolicyError(f"the policy {path}: {error}") from error

    @staticmethod
    def sample() -> str:
        """A policy file to begin with, in which every key is explained."""
        return files("shoal.client").joinpath("policy.toml").read_text("utf-8")

    @property
    def demand(self) -> Demand:
        """What this site asks of every secure sum, whatever the server says: three sites always, two see each other's.

        >>> [(d.clients, d.threshold) for d in (Policy(minimum_cohort=4).demand, Policy(minimum_threshold=0.75).demand)]
        [(4, 0.5), (3, 0.75)]
        """
        usual = Demand()
        return Demand(
            clients=max(usual.clients, self.minimum_cohort), threshold=self.minimum_threshold or usual.threshold
        )

    def open_at(self, now: datetime) -> bool:
        """Whether a task may begin at some local time."""
        begin, end = (0, 24 * 60) if self.hours is None else _minutes(self.hours)
        minute, day = now.hour * 60 + now.minute, now.weekday()
        if begin < end:
            within = begin <= minute < end
        else:
            within = minute >= begin or minute < end
            day -= minute < end
        return within and (self.days is None or DAYS[day] in self.days)


def _keys(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of all sections, checked here so that a message can name the section."""
    found: dict[str, Any] = {}
    for section, keys in given.items():
        known = SECTIONS.get(section)
        if known is None or not isinstance(keys, dict):
            raise SettingError(f"there is no section [{section}]; there are {', '.join(f'[{s}]' for s in SECTIONS)}")
        for name, value in keys.items():
            if name not in known:
                raise SettingError(f"[{section}] has no key {name}; it has {', '.join(known)}")
            try:
                found[name] = known[name](name, value)
            except SettingError as error:
                raise SettingError(f"[{section}] {error}") from error
    return found


def _minutes(hours: str) -> tuple[int, int]:
    begin, end = (int(time[:2]) * 60 + int(time[3:]) for time in hours.split("-"))
    return begin, end


class PolicyFile:
    """A policy's file, read again when it has changed."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._seen: tuple[int, ...] = ()
        self._policy = Policy()

    def policy(self) -> Policy:
        """The policy as it stands in the file now; PolicyError if it cannot be read."""
        try:
            about = self._path.stat()
        except OSError as error:
            raise PolicyError(f"the policy {self._path} cannot be read: {error.strerror or error}") from error
        seen = (about.st_mtime_ns, about.st_size, about.st_ino)
        if seen != self._seen:
            self._policy, self._seen = Policy.load(self._path), seen
        return self._policy


@dataclass(frozen=True)
class Past:
    """What a judgement depends on beside policy and plan: local time, and what was done before.

    `rounds_today` and `bytes_today` are of results since midnight, `runs` the ids of all runs that ever got one;
    `study_file` says whether the plan was made here, from a study file, and `sites` whose public keys are known here.
    """

    now: datetime
    rounds_today: int = 0
    bytes_today: int = 0
    runs: frozenset[str] = frozenset()
    study_file: bool = field(default=False, kw_only=True)
    sites: frozenset[str] = field(default=frozenset(), kw_only=True)


@dataclass(frozen=True)
class Allowed:
    """The plan may have a turn: at most so many seconds, and so many bytes of upload; None for no limit.

    `demand` is what the site asks of a secure sum.
    """

    most_seconds: float | None = None
    most_bytes: int | None = None
    demand: Demand = field(default_factory=Demand)


@dataclass(frozen=True)
class Denied:
    """The plan may not have a turn, and why: every reason there is."""

    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.reasons)


def judge(policy: Policy, plan: Plan, info: RunInfo, past: Past) -> Allowed | Denied:
    """Whether a run's plan may have a turn now. It looks at the plan that would run, not at what is said of it."""
    try:
        plans, limits = _of_plans(policy, plan, info, past), _of_limits(policy, plan, info, past)
        reasons = (*plans, *_of_privacy(policy, plan, info, past), *limits)
    except Exception as error:
        return Denied((f"the plan could not be judged: {type(error).__name__}",))
    if reasons:
        return Denied(reasons)
    left = None if policy.maximum_upload_bytes_a_day is None else policy.maximum_upload_bytes_a_day - past.bytes_today
    most = [limit for limit in (policy.maximum_upload_bytes, left) if limit is not None]
    return Allowed(policy.maximum_seconds, min(most) if most else None, policy.demand)


def _of_plans(policy: Policy, plan: Plan, info: RunInfo, past: Past) -> Iterator[str]:
    digest = plan.digest()
    if info.plan_digest != digest:
        yield "the plan is not the one that the run's digest is of"
    if policy.allow != "any" and not any(_names(entry, digest, info.name) for entry in policy.allow):
        yield f"allow has neither this plan, sha256:{digest}, nor a run named {info.name}"
    if policy.require_study_file and not past.study_file:
        yield "require_study_file: the plan came over the network, and not from a study file that is here"


def _names(entry: str, digest: str, name: str) -> bool:
    """Whether an entry of `allow` means a plan. A run that is named like a digest is not meant by it."""
    return entry == f"sha256:{digest}" if entry.startswith("sha256:") else fnmatchcase(name, entry)


def _of_privacy(policy: Policy, plan: Plan, info: RunInfo, past: Past) -> Iterator[str]:
    aggregation = plan.algorithm.aggregation
    least = max(info.minimum_cohort, aggregation.threshold)
    if least < policy.minimum_cohort:
        yield f"minimum_cohort is {policy.minimum_cohort}, and rounds of this run may close with {least}"
    if policy.clip_required and not math.isfinite(aggregation.sensitivity(plan.algorithm.layout)):
        yield "clip_required: one site can move this plan's sum without limit"
    if aggregation.threshold:
        yield from _of_keys(aggregation.threshold, policy.demand, past.sites)
    elif policy.secure_sum:
        yield f"secure_sum: in this plan the server sees each contribution by itself ({aggregation.meeting})"
    yield from _of_noise(policy, plan)


def _of_noise(policy: Policy, plan: Plan) -> Iterator[str]:
    """What is asked of the noise that the server says it adds, if this site counts as being in each round."""
    asked = [name for name in ("minimum_noise_multiplier", "maximum_epsilon") if getattr(policy, name) is not None]
    if not asked:
        return
    from shoal.privacy import LocalReleases, spent  # with plans comes JAX: who only reads a ledger does not wait
    from shoal.privacy.budget import served

    try:
        releases = LocalReleases.of(plan) if plan.algorithm.aggregation.local else served(plan)
        epsilon = None if policy.maximum_epsilon is None else spent(releases, delta=policy.epsilon_delta).epsilon
    except (SettingError, MissingExtraError) as error:
        yield f"{' and '.join(asked)}: {error}"
        return
    least, most = policy.minimum_noise_multiplier, policy.maximum_epsilon
    if isinstance(releases, LocalReleases):
        if least is not None:
            yield "minimum_noise_multiplier is of a sum's noise, and here a site adds its own: ask for maximum_epsilon"
    elif least is not None and releases.multiplier < least:
        yield f"minimum_noise_multiplier is {least:g}, and the noise of this plan has {releases.multiplier:g}"
    if epsilon is not None and most is not None and epsilon > most:
        yield (
            f"maximum_epsilon is {most:g} at delta {policy.epsilon_delta:g}, and this plan gives away {epsilon:.4g} of "
            "a site that is in each of its rounds"
        )


def _of_keys(threshold: int, demand: Demand, sites: frozenset[str]) -> Iterator[str]:
    """What a secure sum needs that people have to bring."""
    least = max(threshold, demand.clients)
    if not sites:
        yield (
            "the plan has a secure sum, and this site knows no other site's key, so the server could play the others: "
            "collect what `shoal roster` prints at each site, from people, and give it with --roster FILE"
        )
    elif len(sites) < least:
        yield f"a secure sum of at least {least} sites is asked for, and the roster of this site has {len(sites)}"


def _of_limits(policy: Policy, plan: Plan, info: RunInfo, past: Past) -> Iterator[str]:
    if policy.rounds_a_day is not None and past.rounds_today >= policy.rounds_a_day:
        yield f"rounds_a_day is {policy.rounds_a_day}, and so many were done today"
    if policy.runs is not None and len(past.runs | {info.run}) > policy.runs:
        yield f"runs is {policy.runs}, and this would be another one"
    if not policy.open_at(past.now):
        hours, opening_days = policy.hours or "at any hour", ", ".join(policy.days or ("any day",))
        now = f"{past.now:%H:%M} on {DAYS[past.now.weekday()]}"
        yield f"tasks may begin {hours} on {opening_days}, and it is {now}"
    upload = plan.algorithm.aggregation.upload_bytes(plan.algorithm.layout)
    if policy.maximum_upload_bytes is not None and upload > policy.maximum_upload_bytes:
        yield f"maximum_upload_bytes is {policy.maximum_upload_bytes:,}, and a turn of this plan sends up to {upload:,}"
    a_day = policy.maximum_upload_bytes_a_day
    if a_day is not None and past.bytes_today + upload > a_day:
        sent = f"{past.bytes_today:,} were sent today"
        yield f"maximum_upload_bytes_a_day is {a_day:,}, {sent}, and a turn of this plan sends up to {upload:,}"
