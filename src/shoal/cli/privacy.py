"""`shoal privacy study.py`: what a study gives away of one client, by rounds and by noise; what an epsilon takes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli import privacy_picture
from shoal.cli.picture import check_picture
from shoal.cli.study_file import load
from shoal.cli.tables import show
from shoal.data import Population
from shoal.privacy import Releases, Spent, noise_multiplier, rounds_for, spent

Study = Annotated[Path, typer.Argument(help="A Python file that defines a plan.")]
Epsilon = Annotated[float | None, typer.Option(help="Also say how much noise and how many rounds this epsilon takes.")]
Delta = Annotated[float, typer.Option(help="Less than one over the number of clients.")]
Clients = Annotated[int | None, typer.Option(help="The size of the population; the study's own unless said.")]
Colluding = Annotated[int, typer.Option(help="How many clients tell the server their share of the noise.")]

_NOISES = (0.5, 0.75, 1.0, 1.5, 2.0, 4.0)


def command(
    study: Study, epsilon: Epsilon = None, delta: Delta = 1e-6, clients: Clients = None, colluding: Colluding = 0,
    png: Annotated[Path | None, typer.Option(help="Also save a picture of both tables here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:  # fmt: skip
    """Print what a study's plan gives away of one client: epsilon at delta, by rounds and by noise."""
    if png is not None:
        check_picture(png)
    found = load(study)
    if clients is None and isinstance(found.population, Population):
        clients = len(found.population)
    asked: dict[str, Any] = {"delta": delta, "clients": clients, "colluding": colluding}
    answer = spent(found.plan, **asked)
    if answer.why is not None:
        typer.echo(json.dumps(as_data(answer)) if as_json else str(answer))
        return
    releases = Releases.of(found.plan)
    by_rounds = [spent(releases, rounds=rounds, **asked) for rounds in _some(releases.rounds)]
    by_noise = [spent(replace(releases, multiplier=releases.multiplier * factor), **asked) for factor in _NOISES]
    if png is not None:
        privacy_picture.save(png, by_rounds, by_noise, plan=answer)
    takes = None if epsilon is None else {
        "epsilon": epsilon,
        "noise_multiplier": noise_multiplier(releases, epsilon=epsilon, **asked),
        "rounds": rounds_for(releases, epsilon=epsilon, **asked),
    }  # fmt: skip
    if as_json:
        rounds, noise = ([as_data(one) for one in table] for table in (by_rounds, by_noise))
        typer.echo(json.dumps({**as_data(answer), "by_rounds": rounds, "by_noise": noise, "takes": takes}))
        return
    typer.echo(f"{answer}\n")
    show(("rounds", "epsilon"), [(f"{one.rounds:,}", _short(one)) for one in by_rounds], nothing="")
    typer.echo()
    show(("noise", "epsilon"), [(f"{one.noise_multiplier:.4g}", _short(one)) for one in by_noise], nothing="")
    if takes is not None:
        typer.echo(f"\nepsilon {epsilon:g} takes a noise multiplier of {takes['noise_multiplier']:.4g}")
        typer.echo(f"rounds with the plan's own noise, at most: {takes['rounds']:,}")


def as_data(answer: Spent) -> dict[str, Any]:
    """What is spent, as plain data; an infinite epsilon is null."""
    return {**asdict(answer), "epsilon": None if answer.why is not None else answer.epsilon}


def _some(rounds: int) -> list[int]:
    """Some numbers of rounds up to twice as many, each once."""
    return sorted({max(1, round(rounds * part)) for part in (0.1, 0.25, 0.5, 0.75, 1, 2)})


def _short(answer: Spent) -> str:
    return f"{answer.epsilon:.4g}"
