"""`shoal plan study.py`: what a study will do, and what it will cost, before it does it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli.privacy import as_data
from shoal.cli.study_file import load
from shoal.errors import MissingExtraError, PlanError, SettingError
from shoal.plan import Plan
from shoal.privacy import derivation, spent, why_none
from shoal.wire.costs import Costs

_DELTA = 1e-6

Study = Annotated[Path, typer.Argument(help="A Python file that defines a plan.")]


def command(
    study: Study, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> None:
    """Print a study's plan: its work, what leaves a client, how much it gives away and why; what it costs."""
    plan = load(study).plan
    if as_json:
        typer.echo(
            json.dumps(
                {"digest": plan.digest(), "plan": plan.describe(), "network": _costs(plan), "privacy": _privacy(plan),
                 "derivation": _derivation(plan)}
            )
        )  # fmt: skip
        return
    typer.echo(str(plan))
    typer.echo(f"{'epsilon':<12}{_epsilon(plan)}")
    for word, text in (*derivation(plan).lines(), *_seen(plan), *_lines(plan)):
        typer.echo(f"{word:<12}{text}")


def _privacy(plan: Plan) -> dict[str, Any]:
    """What the plan gives away of one client, as plain data."""
    try:
        return as_data(spent(plan, delta=_DELTA))
    except (MissingExtraError, SettingError) as error:
        return {"epsilon": None, "delta": _DELTA, "why": str(error)}


def _epsilon(plan: Plan) -> str:
    """The same for people, in a line."""
    found = _privacy(plan)
    if found["epsilon"] is not None:
        return f"{found['epsilon']:.4g} at delta {_DELTA:g}; how:  shoal privacy study.py"
    if why_none(plan) is not None:
        return "none: no noise that is known protects one client"
    return f"not known: {found['why']}"


def _derivation(plan: Plan) -> dict[str, Any] | None:
    """How the plan's sensitivity comes about, as plain data; None where nothing bounds one client."""
    found = derivation(plan)
    if not math.isfinite(found.sensitivity):
        return None
    steps = [{**asdict(step), "bound": step.bound if math.isfinite(step.bound) else None} for step in found.steps]
    return {**asdict(found), "steps": steps, "signal": found.signal}


def _seen(plan: Plan) -> Iterator[tuple[str, str]]:
    """What of a client is seen by whom."""
    chain = plan.algorithm.aggregation
    parts = "value" if chain.private else "value, weight and metrics"
    own = ", with noise of its own" if chain.local else ""
    if chain.threshold:
        yield "server sees", f"{parts} as sums of {chain.threshold} clients or more, or nothing{own}"
    else:
        yield "server sees", f"{parts} of each client by itself{own}"
    yield "others see", f"the model of each round, {'with' if chain.private else 'without'} noise"


def _costs(plan: Plan) -> dict[str, Any]:
    """What it costs over a network, as plain data."""
    try:
        costs = Costs.of(plan)
    except PlanError as error:
        return {"runs": False, "why": str(error)}
    return {
        "runs": True, "down_bytes": costs.down_bytes, "up_bytes": costs.up_bytes, "plan_bytes": costs.plan_bytes,
        "study_file": costs.study_file or None, "schema": plan.data is not None,
        "secure_sum": costs.masked and asdict(costs.masked),
    }  # fmt: skip


def _lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """The same for people."""
    try:
        costs = Costs.of(plan)
    except PlanError as error:
        yield "network", f"it does not run over one: {error}"
        return
    both, masked = costs.rounds * (costs.down_bytes + costs.up_bytes), costs.masked
    private = plan.algorithm.aggregation.private
    metrics = "" if private else " with its metrics" if masked else ", and its metrics"
    back = f"{costs.up_bytes:,} back{', masked' if masked else ''}{metrics}"
    yield "network", f"{costs.down_bytes:,} bytes to each client of a round, {back}"
    if masked is not None:
        more = f"{masked.down_bytes:,} bytes to a client and {masked.up_bytes:,} back"
        yield "", f"and keys, shares and signatures: {more}, in a sum of {masked.clients:,}"
        both += costs.rounds * (masked.down_bytes + masked.up_bytes)
    yield "", f"in {costs.rounds:,} rounds at most {both:,} for a client, and once {costs.plan_bytes:,} for the plan"
    yield "sites need", "their data, as above" if plan.data is not None else "their data: the plan has no Schema"
    if masked is not None:
        yield "", "a roster of the other sites' keys, from people: shoal roster, shoal join --roster"
    if costs.study_file:
        yield "", f"the study file: {costs.study_file}"
