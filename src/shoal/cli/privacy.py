"""`shoal privacy`: what a study gives away of one client, by rounds and by noise, and what an epsilon takes; or with
`--ledger` what a server's runs have given away."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli import privacy_picture
from shoal.cli.operating import FOLDER, Folder, Server, TokenFile, Trusted, connect
from shoal.cli.picture import check_picture
from shoal.cli.spent import DELTA, show_ledger
from shoal.cli.study_file import load
from shoal.cli.tables import show
from shoal.data import Population
from shoal.errors import SettingError
from shoal.privacy import LocalReleases, Releases, Spent, noise_multiplier, rounds_for, spent

Study = Annotated[Path | None, typer.Argument(help="A Python file that defines a plan.")]
Epsilon = Annotated[float | None, typer.Option(help="Also say how much noise and how many rounds this epsilon takes.")]
Delta = Annotated[float | None, typer.Option(help="Less than one over the number of clients; 1e-6 if not said.")]
Clients = Annotated[int | None, typer.Option(help="The size of the population; the study's own unless said.")]
Colluding = Annotated[int, typer.Option(help="How many clients tell the server their share of the noise.")]

_NOISES = (0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
_MOST = 50.0  # that a local step takes


def command(
    study: Study = None, epsilon: Epsilon = None, delta: Delta = None, clients: Clients = None,
    colluding: Colluding = 0,
    png: Annotated[Path | None, typer.Option(help="Also save a picture of both tables here.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ledger: Annotated[bool, typer.Option("--ledger", help="What a server's runs gave away, and its budget.")] = False,
    folder: Folder = FOLDER, server: Server = None, token_file: TokenFile = None, ca: Trusted = None,
) -> None:  # fmt: skip
    """Print what a study's plan gives away of one client, or with --ledger what a server's runs did."""
    if ledger:
        if study is not None or epsilon is not None:
            raise SettingError("--ledger is of a server's runs, not of a study: leave the study and --epsilon out")
        with connect(folder, server, token_file, ca) as operator:
            show_ledger(operator, delta=delta, as_json=as_json)
        return
    if study is None:
        raise SettingError("name a study file, as in  shoal privacy study.py, or ask a server with --ledger")
    if png is not None:
        check_picture(png)
    delta = DELTA if delta is None else delta
    found = load(study)
    if clients is None and isinstance(found.population, Population):
        clients = len(found.population)
    asked: dict[str, Any] = {"delta": delta, "clients": clients, "colluding": colluding}
    answer = spent(found.plan, **asked)
    if answer.why is not None:
        typer.echo(json.dumps(as_data(answer)) if as_json else str(answer))
        return
    local = found.plan.algorithm.aggregation.local
    releases = LocalReleases.of(found.plan) if local else Releases.of(found.plan)
    by_rounds = [spent(releases, rounds=rounds, **asked) for rounds in _some(releases)]
    own, others = _noises(releases)
    by_noise = {noise: spent(other, **asked) for noise, other in others.items()}
    if png is not None:
        called = "epsilon of one contribution" if local else "noise multiplier"
        privacy_picture.save(png, by_rounds, by_noise, plan=(own, answer), noise=called)
    takes = None if epsilon is None else {
        "epsilon": epsilon,
        "noise_multiplier": None if local else noise_multiplier(found.plan, epsilon=epsilon, **asked),
        "rounds": rounds_for(releases, epsilon=epsilon, **asked),
    }  # fmt: skip
    if as_json:
        rounds = [as_data(one) for one in by_rounds]
        each = "epsilon_of_each" if local else "noise_multiplier"
        noise = [{**as_data(one), each: value} for value, one in by_noise.items()]
        typer.echo(json.dumps({**as_data(answer), "by_rounds": rounds, "by_noise": noise, "takes": takes}))
        return
    typer.echo(f"{answer}\n")
    show(("rounds", "epsilon"), [(f"{one.rounds:,}", _short(one)) for one in by_rounds], nothing="")
    typer.echo()
    column = "of each" if local else "noise"
    show((column, "epsilon"), [(f"{noise:.4g}", _short(one)) for noise, one in by_noise.items()], nothing="")
    if takes is None:
        return
    typer.echo()
    if not local:
        typer.echo(f"epsilon {epsilon:g} takes a noise multiplier of {takes['noise_multiplier']:.4g}")
    typer.echo(f"rounds with the plan's own noise, at most: {takes['rounds']:,}")


def as_data(answer: Spent) -> dict[str, Any]:
    """What is spent, as plain data; an infinite epsilon is null."""
    return {**asdict(answer), "epsilon": None if answer.why is not None else answer.epsilon}


def _noises(releases: Releases | LocalReleases) -> tuple[float, dict[float, Releases | LocalReleases]]:
    """A plan's own noise, and releases by theirs: by multiplier, or by the epsilon of one contribution."""
    if isinstance(releases, LocalReleases):
        own = releases.step.epsilon
        others = [own / factor for factor in _NOISES if own / factor <= _MOST]
        return own, {one: replace(releases, step=replace(releases.step, epsilon=one)) for one in others}
    own = releases.multiplier
    return own, {own * factor: replace(releases, multiplier=own * factor) for factor in _NOISES}


def _some(releases: Releases | LocalReleases) -> list[int]:
    """Some numbers of rounds up to twice as many, each once; no more than noise that is correlated is for."""
    some = {max(1, round(releases.rounds * part)) for part in (0.1, 0.25, 0.5, 0.75, 1, 2)}
    if isinstance(releases, Releases) and releases.matrix is not None:
        some = {rounds for rounds in some if rounds <= releases.matrix.rounds}
    return sorted(some)


def _short(answer: Spent) -> str:
    return f"{answer.epsilon:.4g}"
