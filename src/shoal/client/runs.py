"""The runs that a server told a client of: their plans, and whether the site's policy lets them have a turn."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from shoal.client.consent import Consent
from shoal.client.events import Event, Refused, Welcomed
from shoal.client.ledger import Ledger
from shoal.client.policy import Allowed, Denied, Policy, PolicyFile, judge
from shoal.client.roster import RosterFile
from shoal.client.secure import is_masked
from shoal.errors import PolicyError, ShoalError
from shoal.plan import Plan
from shoal.turns import check_deployable
from shoal.wire.messages import RunInfo
from shoal.wire.plans import rebuilt


@dataclass(frozen=True)
class Known:
    """A run with its plan; without one, why there is none. `local` is a plan that was made here, not sent."""

    info: RunInfo
    plan: Plan | None
    local: bool = False
    why_not: str = ""


class Runs:
    """What is known of runs. A plan is one of `plans`, from the site's own study files, or rebuilt from what was sent.

    The policy is asked each time, because hours, files, the roster and what was done today change.
    """

    def __init__(
        self,
        policy: Policy | PolicyFile | Consent,
        ledger: Ledger,
        *,
        plans: Sequence[Plan] = (),
        roster: RosterFile | None = None,
        tell: Callable[[Event], None] = lambda event: None,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._policy, self._ledger, self._tell, self._now = policy, ledger, tell, now
        self._roster = roster
        self._plans = {plan.digest(): plan for plan in plans}
        self._known: dict[str, Known] = {}
        self._said: dict[str, tuple[str, ...]] = {}
        self._lock = threading.Lock()

    def learn(self, info: RunInfo) -> None:
        """Takes note of a run."""
        with self._lock:
            self._known[info.run] = self._resolved(info)
            self._said.pop(info.run, None)

    def knows(self, run: str) -> bool:
        """Whether the run was told of."""
        return run in self._known

    def refused(self) -> tuple[str, ...]:
        """The runs that may not have a turn now."""
        with self._lock:
            known = list(self._known)
        return tuple(run for run in known if isinstance(self._judged(run), Denied))

    def allowed(self, run: str) -> tuple[Known, Allowed]:
        """The run, if it may have a turn now; PolicyError, with every reason, if not."""
        verdict = self._judged(run)
        if isinstance(verdict, Denied):
            raise PolicyError("; ".join(verdict.reasons))
        return self._known[run], verdict

    def known(self, run: str) -> Known:
        """A run that was told of."""
        return self._known[run]

    def _resolved(self, info: RunInfo) -> Known:
        try:
            local = self._plans.get(info.plan_digest)
            plan = local or rebuilt(info.plan)
            if plan.digest() != info.plan_digest:
                return Known(info, None, why_not="its plan is not the one that its digest is of")
            check_deployable(plan.algorithm)
            return Known(info, plan, local is not None)
        except ShoalError as error:
            return Known(info, None, why_not=str(error))

    def _judged(self, run: str) -> Allowed | Denied:
        known = self._known[run]
        verdict = self._asked(known)
        reasons = verdict.reasons if isinstance(verdict, Denied) else ()
        if self._said.get(run) != reasons:
            self._said[run] = reasons
            self._tell(Refused(known.info.name, reasons) if reasons else Welcomed(known.info.name))
        return verdict

    def _asked(self, known: Known) -> Allowed | Denied:
        if known.plan is None:
            return Denied((known.why_not,))
        try:
            policy = self._policy_for(known.plan, known.info)
            sites = self._roster.sites() if self._roster is not None and is_masked(known.plan) else ()
        except PolicyError as error:
            return Denied((str(error),))
        past = self._ledger.past(self._now(), study_file=known.local, sites=sites)
        return judge(policy, known.plan, known.info, past)

    def _policy_for(self, plan: Plan, info: RunInfo) -> Policy:
        match self._policy:
            case Policy():
                return self._policy
            case PolicyFile():
                return self._policy.policy()
            case Consent():
                return self._policy.policy(plan, info)
