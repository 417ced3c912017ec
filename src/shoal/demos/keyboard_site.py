"""Some roles of the keyboard as one process: `python -m shoal.demos.keyboard_site FOLDER URL AUTHORITY NAME ...`.

Each is a client of its own, with its key, its ledger and its rows; they share a policy.
"""

from __future__ import annotations

import sys
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from shoal.client.agent import Agent
from shoal.client.data import source
from shoal.client.identity import Home
from shoal.client.joining import joined
from shoal.client.policy import PolicyFile
from shoal.demos.hospitals_site import tell
from shoal.demos.processes import order, told


def main(folder: Path, server: str, authority: str, names: list[str]) -> None:
    """Takes part until its input ends. The token is the first line of that."""
    ended = threading.Event()
    token, trusted = order(ended.set), Path(authority).read_text("ascii")
    with ExitStack() as held:
        agents: list[Agent] = []
        for name in names:
            home = Home(folder / name / "home")
            joined(home, server, token=token, name=name, authority=trusted)
            data = source(partial(rows, folder / name / "rows.npz"))
            agent = Agent(home, data, policy=PolicyFile(folder / "policy.toml"), tell=tell)
            agents.append(held.enter_context(agent))
        threads = [threading.Thread(target=agent.run, name=name) for agent, name in zip(agents, names, strict=True)]
        for thread in threads:
            thread.start()
        ended.wait()
        for agent in agents:
            agent.stop()
        for thread in threads:
            thread.join()


def rows(path: Path) -> dict[str, Any]:
    """The rows of a role."""
    with np.load(path, allow_pickle=False) as file:
        return {"x": file["x"], "y": file["y"]}


if __name__ == "__main__":
    told(lambda: main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:]))
