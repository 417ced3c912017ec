"""The keyboard with an epsilon, for people and for programs: a table, what was spent, plain data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from msgspec import to_builtins
from rich.box import SIMPLE_HEAD
from rich.table import Table

from shoal.demos.keyboard_deployed import Deployed
from shoal.demos.keyboard_private import CUT, Private

NOTE = (
    "simulated noise: drawn from the seed, it measures what privacy costs and protects nobody. Epsilon is for a role, "
    "with all that it says. Vocabulary and table are those of public roles; recall is on the last fifth of what the "
    f"private ones say. A sum under {CUT:g} deviations of its noise is dropped. leaves a role: what it sends in all."
)


def table(private: Private) -> Table:
    """A row for each way to guess the next word."""
    public, others = private.roles
    title = f"Next word of {others:,} private roles; {public:,} are public, and with them {private.vocabulary:,} words"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("guessed by", no_wrap=True)
    for name in ("top 1", "top 3", "leaves a role"):
        table.add_column(name, justify="right")
    for line in private.lines:
        table.add_row(line.way, *(f"{found:.3f}" for found in line.recall), line.leaves)
    return table


def spent(private: Private) -> Iterator[str]:
    """What each part gives away, and all together."""
    for part, found in private.spent.items():
        yield f"{part}\n" + "\n".join(f"  {word:<12}{text}" for word, text in found.lines())


def data(private: Private) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "demo": "keyboard",
        "noise": "simulated",
        "roles": {"public": private.roles[0], "private": private.roles[1]},
        "vocabulary": private.vocabulary,
        "rows": [
            {"guessed by": line.way, "top 1": line.recall[0], "top 3": line.recall[1], "leaves a role": line.leaves}
            for line in private.lines
        ],
        "spent": {part: asdict(found) for part, found in private.spent.items()},
    }


DEPLOYED_NOTE = (
    "The noise is of the operating system. The server was killed after a release was in its ledger and before the "
    "model was on disk: the round was closed again with other noise, and both count. top 1, top 3: on the last fifth "
    "of what these roles say. Noise that hides one of so few leaves little to learn."
)


def deployed_table(deployed: Deployed) -> Table:
    """The network's model beside one with simulated noise and one without."""
    terms = deployed.terms
    title = (
        f"{terms.roles:,} roles as clients over TLS, {terms.rounds} rounds, the server killed in round "
        f"{terms.killed_at}, {deployed.seconds:.1f} s"
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("LSTM of", no_wrap=True)
    for name in ("top 1", "top 3"):
        table.add_column(name, justify="right")
    rows = {
        "the network": deployed.network,
        "simulate, simulated noise": deployed.simulated,
        "simulate, no noise": deployed.without_noise,
    }
    for name, found in rows.items():
        table.add_row(name, *(f"{recall:.3f}" for recall in found))
    return table


def ledger(deployed: Deployed) -> Iterator[str]:
    """What the server's ledger says was spent, and what is left of its budget."""
    budget = deployed.ledger.budget
    assert budget is not None
    yield f"ledger      {deployed.releases} releases of {deployed.terms.rounds} rounds"
    yield from (f"{word:<12}{text}" for word, text in deployed.spent.lines())
    yield f"budget      epsilon {budget.epsilon:g} at delta {budget.delta:g}"
    yield f"left        epsilon {max(0.0, budget.epsilon - deployed.spent.epsilon):.2g}"


def deployed_data(deployed: Deployed) -> dict[str, Any]:
    """The same as plain data."""
    return {"demo": "keyboard", "noise": "the operating system's", **to_builtins(deployed)}
