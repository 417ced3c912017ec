"""A policy by a person's word: each plan is asked about once, and a yes is kept in a file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from shoal.client.policy import Policy
from shoal.errors import PolicyError
from shoal.plan import Plan
from shoal.whole_file import write_whole
from shoal.wire.messages import RunInfo

Ask = Callable[[Plan, RunInfo], bool | None]
"""Shows a plan and what the server says of its run to a person; whether the answer is yes, None if nobody answered."""

_HEADER = "# The plans that a person at this site said yes to. Take a line away to be asked again.\n"


class Consent:
    """What a person allows who is asked about every plan that is not in the file yet.

    A yes holds for that plan's digest, for ever; a no until the process ends. The file is a policy, and may be used
    as one.

    >>> import tempfile
    >>> from shoal import FedAvg, models
    >>> plan = Plan(FedAvg(models.logistic(3)), rounds=2)
    >>> info = RunInfo(run="r1", name="heart", plan=b"", plan_digest=plan.digest(), minimum_cohort=3)
    >>> consent = Consent(Path(tempfile.mkdtemp()) / "approved.toml", lambda plan, info: info.minimum_cohort >= 3)
    >>> consent.policy(plan, info).allow == (f"sha256:{plan.digest()}",)
    True
    """

    def __init__(self, path: Path, ask: Ask) -> None:
        self._path, self._ask = path, ask
        self._lock = threading.Lock()
        self._refused: set[str] = set()

    def policy(self, plan: Plan, info: RunInfo) -> Policy:
        """The policy for a plan, after it was asked about if it never was. PolicyError for a file that is damaged."""
        entry = f"sha256:{plan.digest()}"
        with self._lock:
            policy = Policy.load(self._path) if self._path.exists() else Policy()
            if policy.allow == "any" or entry in policy.allow or entry in self._refused:
                return policy
            answer = self._ask(plan, info)
            if answer:
                return self._kept([*policy.allow, entry])
            if answer is False:
                self._refused.add(entry)
            return policy

    def _kept(self, allow: list[str]) -> Policy:
        lines = "".join(f'    "{entry}",\n' for entry in allow)
        try:
            write_whole(self._path, f"{_HEADER}[plans]\nallow = [\n{lines}]\n".encode(), mode=0o600)
        except OSError as error:
            raise PolicyError(f"the yes cannot be kept in {self._path}: {error.strerror}") from error
        return Policy.load(self._path)
