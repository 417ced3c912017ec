"""The keyboard's server as a process: `python -m shoal.demos.keyboard_server FOLDER TERMS`, the terms as JSON."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import numpy as np

from shoal.demos.hospitals_server import Conductor
from shoal.demos.keyboard_deployed import RUN, Terms, training
from shoal.demos.keyboard_private import DELTA
from shoal.demos.processes import order, say, told
from shoal.errors import StoppedError
from shoal.privacy.budget import Budget
from shoal.rounds.rules import Rules
from shoal.server.federation import Federation, log_to_file


def main(folder: Path, terms: Terms) -> None:
    """Serves with a budget until its input ends; the run goes on that an earlier process began.

    The first process makes a token for the roles.
    """
    ended = threading.Event()
    order(ended.set)
    log_to_file(folder)
    budget = Budget(terms.epsilon, DELTA)
    federation = Federation.at(folder, name="keyboards", port=terms.port, budget=budget, drain_s=2.0)
    with federation.running() as serving:
        assert federation.tls is not None
        ready = {"url": federation.url, "authority": str(federation.tls.authority)}
        if not terms.port:
            asked = federation.coordinator.token(label="demo", uses=terms.roles, lasts_s=3600.0)
            ready["token"] = serving.call(asked)
        say(event="ready", **ready)
        rules = Rules(at_least=terms.at_least, wait_for=terms.roles)
        conductor = Conductor(federation, serving, ended, rules=rules)
        try:
            state, _ = conductor.ask(RUN, training(terms))
        except StoppedError:
            return
        say(event="found", vector=np.asarray(state.vector).tolist())
        ended.wait()


if __name__ == "__main__":
    told(lambda: main(Path(sys.argv[1]), Terms(**json.loads(sys.argv[2]))))
