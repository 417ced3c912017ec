"""The demo's server as a process: `python -m shoal.demos.hospitals_server FOLDER TERMS`, the terms as JSON."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shoal.data.hospitals import HOSPITALS
from shoal.demos.hospitals_deployed import SEED, THRESHOLD, Ask, Terms, study
from shoal.demos.hospitals_private import DELTA, learn
from shoal.demos.processes import order, say, told
from shoal.errors import RunError, StoppedError
from shoal.plan import Plan
from shoal.privacy.budget import Budget
from shoal.rounds.rules import Rules
from shoal.server.federation import Federation, log_to_file
from shoal.server.serving import Serving

RULES = Rules(at_least=len(HOSPITALS))
LOOK_S = 0.1


class Conductor:
    """Runs plans one after another with the clients of a federation, and tells of every round."""

    def __init__(self, federation: Federation, serving: Serving, ended: threading.Event, *, rules: Rules) -> None:
        self._federation, self._serving, self._ended, self._rules = federation, serving, ended, rules

    def ask(self, name: str, plan: Plan) -> tuple[Any, Mapping[str, float]]:
        """The state after a run and the metrics of its last round; one that was begun before goes on."""
        call, coordinator = self._serving.call, self._federation.coordinator
        call(self._federation.submit_once(plan, name=name, rules=self._rules, seed=SEED))
        before = None
        while (view := coordinator.run(name)).status != "completed":
            if view.status in ("paused", "failed", "cancelled"):
                raise RunError(f"the run {name} is {view.status}: {view.reason}")
            if view.round != before:
                say(event="round", run=name, round=view.round, rounds=view.rounds)
                before = view.round
            if self._ended.wait(LOOK_S):
                raise StoppedError(f"the server was told to end during {name}")
        say(event="round", run=name, round=view.round, rounds=view.rounds)
        return call(coordinator.state(name)), view.history[-1].metrics


def main(folder: Path, terms: Terms) -> None:
    """Serves until its input ends: makes a token for the hospitals, then conducts the runs.

    An epsilon is the budget of the federation. Whoever says nothing for `stage_s` is left out of a secure sum.
    """
    secure = Rules(at_least=THRESHOLD, wait_for=len(HOSPITALS), stage_s=terms.stage_s)
    ended = threading.Event()
    order(ended.set)
    log_to_file(folder)
    budget = None if terms.epsilon is None else Budget(terms.epsilon, DELTA)
    federation = Federation.at(folder, name="hearts", port=0, budget=budget, drain_s=2.0)
    with federation.running() as serving:
        token = serving.call(federation.coordinator.token(label="demo", uses=len(HOSPITALS), lasts_s=3600.0))
        assert federation.tls is not None
        say(event="ready", url=federation.url, authority=str(federation.tls.authority), token=token)
        try:
            found = _found(Conductor(federation, serving, ended, rules=secure if terms.secure else RULES).ask, terms)
        except StoppedError:
            return
        say(event="found", found=found)
        ended.wait()


def _found(ask: Ask, terms: Terms) -> dict[str, Any]:
    """What the study finds: with an epsilon a model and nothing else."""
    if terms.epsilon is None:
        return asdict(study(ask, terms.rounds, secure=terms.secure))
    return {"vector": learn(ask, terms)}


if __name__ == "__main__":
    told(lambda: main(Path(sys.argv[1]), Terms(**json.loads(sys.argv[2]))))
