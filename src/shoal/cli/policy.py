"""`shoal policy`: what a site allows, and what it would say of a plan."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from shoal.cli.study_file import load
from shoal.cli.tables import plain, print_json
from shoal.client.ledger import Ledger
from shoal.client.policy import SECTIONS, Denied, Past, Policy, judge
from shoal.client.roster import FILE, read_roster
from shoal.errors import SettingError
from shoal.plan import Plan
from shoal.wire.messages import RunInfo
from shoal.wire.plans import rebuilt

app = typer.Typer(no_args_is_help=True, help="What a site allows.")

File = Annotated[Path, typer.Argument(help="The policy.")]
Study = Annotated[Path | None, typer.Option(help="A study file whose plan is judged.")]
Described = Annotated[Path | None, typer.Option("--plan", help="What shoal plan --json printed, judged as if sent.")]
Name = Annotated[str, typer.Option(help="The run's name, as the server would say it.")]
Home = Annotated[Path | None, typer.Option(help="The client's home: what was done before, and its roster.")]
Roster = Annotated[Path | None, typer.Option(help="The roster, where it is not in the home.")]


@app.command()
def sample() -> None:
    """Print a policy to begin with, in which every key is explained."""
    typer.echo(Policy.sample(), nl=False)


@app.command()
def check(
    file: File = Path("policy.toml"),
    study: Study = None,
    described: Described = None,
    name: Name = "study",
    minimum_cohort: Annotated[int, typer.Option(min=1, help="With how many clients a round may close.")] = 1,
    home: Home = None,
    roster: Roster = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what a policy allows, and what it says of a plan; exit status 1 if that is no."""
    policy = Policy.load(file)
    plan = _plan(study, described)
    reasons: tuple[str, ...] | None = None
    if plan is not None:
        info = RunInfo(run="checked", name=name, plan=b"", plan_digest=plan.digest(), minimum_cohort=minimum_cohort)
        verdict = judge(policy, plan, info, _past(home, roster, study_file=study is not None))
        reasons = verdict.reasons if isinstance(verdict, Denied) else ()
    if as_json:
        allowed = None if reasons is None else not reasons
        print_json({"policy": _said(policy), "allowed": allowed, "reasons": reasons or ()})
    else:
        _print(policy, plan, reasons)
    if reasons:
        raise typer.Exit(1)


def _plan(study: Path | None, described: Path | None) -> Plan | None:
    if study is not None and described is not None:
        raise SettingError("a plan is judged from --study or from --plan: give one of them")
    if study is not None:
        return load(study).plan
    if described is None:
        return None
    try:
        told: Any = json.loads(described.read_bytes())
        return rebuilt(json.dumps(told.get("plan", told), sort_keys=True).encode())
    except (OSError, ValueError, AttributeError) as error:
        raise SettingError(
            f"{described} cannot be read ({type(error).__name__}): make it with  shoal plan study.py --json"
        ) from None


def _past(home: Path | None, roster: Path | None, *, study_file: bool) -> Past:
    """What was done before, of the home that is named or nothing, and whose keys are known."""
    if roster is None and home is not None and (home / FILE).exists():
        roster = home / FILE
    sites = frozenset(read_roster(roster) if roster is not None else ())
    if home is None:
        return Past(datetime.now(), study_file=study_file, sites=sites)
    with Ledger.existing(home / "ledger.db") as ledger:
        return ledger.past(datetime.now(), study_file=study_file, sites=sites)


def _said(policy: Policy) -> dict[str, Any]:
    """The keys that are not as they are by default, and `allow`."""
    kept = {field.name: getattr(policy, field.name) for field in fields(policy)}
    return {name: value for name, value in kept.items() if name == "allow" or value != getattr(Policy(), name)}


def _print(policy: Policy, plan: Plan | None, reasons: tuple[str, ...] | None) -> None:
    said = _said(policy)
    for section, keys in SECTIONS.items():
        for key in keys:
            if key in said:
                print(plain(f"{section:<10}{key} = {json.dumps(said[key])}"))
    if not policy.allow:
        print("It allows no plan: name digests or runs in allow.")
    if plan is None or reasons is None:
        return
    print(f"\nplan sha256:{plan.digest()}: {'refused' if reasons else 'allowed'}")
    for reason in reasons:
        print(plain(f"  {reason}"))
