"""A server in a process of its own, for tests that kill it: `tests.chaos.serve FOLDER PORT PLAN [STORE [BLOBS]]`.

It makes a token for each site, begins the run, and says so on its standard output. What is wrong with its disk, and
with its clock, is in the environment.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import resource
import signal
import sys
import time

import jax

from shoal.server.federation import Federation, log_to_file
from shoal.server.limits import Limits
from shoal.store.store import Write
from tests.chaos.study import BAD, PLANS, SEED, SITES, rules

MOST_FILE = "SHOAL_CHAOS_MOST_FILE"
"""No file of the server becomes larger than so many bytes: a full disk. SIGUSR1 makes room."""
CLOCK = "SHOAL_CHAOS_CLOCK"
"""So many seconds its wall clock is off."""
RATE = "SHOAL_CHAOS_RATE"
"""So many requests a second it takes of one client."""


def main(folder: str, port: str, plan: str, store: str | None = None, blobs: str | None = None) -> None:
    shift_clock(float(os.environ.get(CLOCK, "0")))
    if MOST_FILE in os.environ:  # or a compiled program could be left cut off in the cache of all
        jax.config.update("jax_enable_compilation_cache", False)
    logging.raiseExceptions = False  # the log, too, is on a disk that may be full
    log_to_file(folder)
    limits = Limits(anonymous_rate=10_000, client_rate=float(os.environ.get(RATE, "10000")))
    here = Federation.at(
        folder, name="wards", store=store, blobs=blobs, port=int(port), plans=[PLANS[plan]], limits=limits
    )

    async def start() -> None:
        for name in (*SITES.names, *BAD):
            await asyncio.to_thread(make_token, here, name)
        await here.submit_once(PLANS[plan], name="study", rules=rules(plan), seed=SEED)

    def ready(url: str) -> None:
        print(url, flush=True)
        limit_disk()

    here.serve(start=start, ready=ready)


def make_token(here: Federation, name: str) -> None:
    hashed = hashlib.sha256(f"token of {name}".encode()).hexdigest()
    if not here.store.read("token", hash=hashed):
        row = {"hash": hashed, "label": name, "uses_left": 1, "expires": time.time() + 1e6, "created": time.time()}
        here.store.write(Write("token_add", row)).result()


def limit_disk() -> None:
    most = os.environ.get(MOST_FILE)
    if most is None:
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writes fail with EFBIG, as they fail with ENOSPC
    signal.signal(signal.SIGUSR1, lambda *_: resource.setrlimit(resource.RLIMIT_FSIZE, before))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(most), before[1]))


def shift_clock(seconds: float) -> None:
    """The process's wall clock jumps; what measures durations does not."""
    if seconds:
        real = time.time
        time.time = lambda: real() + seconds


if __name__ == "__main__":
    main(*sys.argv[1:])
