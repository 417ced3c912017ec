"""Shoal's server as `shoal serve` runs it, with clients that are enrolled already and one run.

`python -m benchmarks.network_server FOLDER SETTINGS`: only the limits on how often one address may ask are raised,
because all clients of a benchmark come from one.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.network_fleet import NAME, client_id, key_of
from benchmarks.network_memory import peak_mb
from shoal import FedAvg, Plan, models
from shoal.rounds.rules import Rules
from shoal.server.federation import Federation, log_to_file
from shoal.server.limits import Limits
from shoal.store.store import Write
from shoal.wire.signing import public_key_of

LIMITS = Limits(anonymous_rate=1e6, client_rate=1e6, client_bytes_rate=1e12)


def plan_of(numbers: int, rounds: int) -> Plan:
    """A plan whose model has so many numbers, and whose training takes no time to speak of."""
    return Plan(FedAvg(models.logistic(numbers - 1), steps=1, batch_size=1), rounds=rounds)


def enrolled(number: int) -> Write:
    """What enrols a client, without its asking."""
    client = client_id(number)
    public = public_key_of(key_of(client))
    return Write("client_add", {"id": client, "name": client, "public_key": public, "token_label": "",
                                "enrolled": time.time()})  # fmt: skip


def main() -> None:
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    log_to_file(folder)
    federation = Federation.at(folder, name=NAME, port=settings.get("port", 0), hosts=["localhost"], limits=LIMITS)
    if not federation.store.read("clients"):
        federation.store.write(*map(enrolled, range(settings["clients"]))).result()
    plan = plan_of(settings["numbers"], settings.get("rounds", 1000))
    cohort = settings["cohort"]
    rules = Rules(at_least=cohort, wait_for=cohort)

    def ready(url: str) -> None:
        certificate = str(federation.tls.authority) if federation.tls is not None else ""
        print(json.dumps({"url": url, "authority": certificate, "resident_mb": peak_mb()}), flush=True)

    federation.serve(start=lambda: federation.submit_once(plan, name="run", rules=rules, seed=0), ready=ready)


if __name__ == "__main__":
    main()
