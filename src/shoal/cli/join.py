"""`shoal join URL`: a site's agent."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.durations import seconds
from shoal.cli.homes import default_home
from shoal.cli.site import Telling
from shoal.cli.study_file import load
from shoal.client.agent import HOLD_S, Agent
from shoal.client.consent import Consent
from shoal.client.data import source
from shoal.client.identity import Home
from shoal.client.joining import authority_with, joined
from shoal.client.policy import Policy, PolicyFile
from shoal.client.roster import FILE, read_roster, write_roster
from shoal.errors import SettingError
from shoal.plan import Plan
from shoal.wire.messages import RunInfo

Url = Annotated[str, typer.Argument(help="The server, such as https://shoal.example.org:8433.")]
Data = Annotated[
    str, typer.Option(help="A file.csv or file.parquet, a database's URL, or a function as load.py:patients.")
]
Query = Annotated[str | None, typer.Option(help="What a database is asked: SELECT age, ill FROM patients")]
Features = Annotated[str | None, typer.Option("--x", help="Columns of x, with commas, for a plan without a schema.")]
Label = Annotated[str | None, typer.Option("--y", help="The label's column, for a plan without a schema.")]
Token = Annotated[str | None, typer.Option(help="From the operator, for the first time; asked for if not said.")]
Name = Annotated[str | None, typer.Option(help="This client's name, for the first time; the machine's if not said.")]
Trusted = Annotated[Path | None, typer.Option("--ca", help="The certificate of the server's authority, in PEM.")]
Fingerprint = Annotated[
    str | None, typer.Option(help="The SHA-256 of the server's own authority, from its operator, in place of --ca.")
]
PolicyPath = Annotated[Path | None, typer.Option("--policy", help="What this site allows; without it you are asked.")]
Roster = Annotated[
    Path | None, typer.Option(help="The other sites' public keys, for secure sums; kept in the home (shoal roster).")
]
Study = Annotated[Path | None, typer.Option(help="The study file, for a plan that cannot travel by itself.")]
HomeFolder = Annotated[
    Path | None, typer.Option("--home", help="The client's key, ledger and journal; ~/.shoal/HOST if not said.")
]


def command(
    url: Url,
    data: Data,
    query: Query = None,
    x: Features = None,
    y: Label = None,
    token: Token = None,
    name: Name = None,
    ca: Trusted = None,
    fingerprint: Fingerprint = None,
    policy: PolicyPath = None,
    roster: Roster = None,
    study: Study = None,
    home: HomeFolder = None,
    poll: Annotated[bool, typer.Option("--poll", help="Come when the server says, and hold no connection.")] = False,
    grace: Annotated[str, typer.Option(help="How long work may go on once it is told to end.")] = "5s",
    once: Annotated[bool, typer.Option("--once", help="End after one task.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Allow every plan, where no policy is given.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each event as a line of JSON.")] = False,
) -> None:
    """Join a federation with a site's data, and take part until Ctrl-C."""
    if yes and policy is not None:
        raise SettingError("--yes allows every plan, and --policy says which: give one of them")
    found = source(data, query=query, features=None if x is None else x.split(","), label=y)
    plans = () if study is None else (load(study).plan,)
    sites = None if roster is None else read_roster(roster)
    place = Home(home or default_home(url))
    telling = Telling(place, as_json=as_json)
    allowed = _policy(policy, place, telling, yes=yes)
    grace_s = seconds(grace)
    _join(place, url, token=token, name=name, ca=ca, fingerprint=fingerprint)
    if sites is not None:
        write_roster(place.folder / FILE, sites)
    hold_s = 0.0 if poll else HOLD_S
    with Agent(place, found, policy=allowed, plans=plans, hold_s=hold_s, grace_s=grace_s, tell=telling) as agent:
        if once:
            _one_task(agent, telling)
        else:
            with telling.shown():
                agent.run()


def _one_task(agent: Agent, telling: Telling) -> None:
    """Checks in until a task has an end."""
    try:
        with telling.shown():
            while not telling.settled:
                agent.step(wait_s=HOLD_S)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _policy(path: Path | None, home: Home, telling: Telling, *, yes: bool) -> PolicyFile | Consent:
    """What says which plans are allowed: a file, a person, or --yes."""
    if path is not None:
        Policy.load(path)  # so that a mistake in it is told now
        return PolicyFile(path)
    if not yes and not sys.stdin.isatty():
        raise SettingError("nobody is there to be asked about a plan: give a --policy, or --yes to allow every plan")

    def asked(plan: Plan, info: RunInfo) -> bool | None:
        if threading.current_thread() is not threading.main_thread():
            return None  # only the agent's own loop asks: the next check-in does
        telling.plan(plan, info)
        return yes or _answer(telling)

    return Consent(home.folder / "approved.toml", asked)


def _answer(telling: Telling) -> bool:
    """A person's yes or no. Ctrl-C is a no, and ends the agent as anywhere else."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with telling.hidden():
            return typer.confirm("Take part with this site's data?", default=False, err=True)
    except (KeyboardInterrupt, typer.Abort):
        signal.signal(signal.SIGINT, before)
        signal.raise_signal(signal.SIGINT)
        return False
    finally:
        signal.signal(signal.SIGINT, before)


def _join(
    home: Home, url: str, *, token: str | None, name: str | None, ca: Path | None, fingerprint: str | None
) -> None:
    """Enrols at the first time."""
    if ca is not None and fingerprint is not None:
        raise SettingError("--ca gives the authority's certificate, and --fingerprint fetches it: give one of them")
    authority = None
    if home.identity is None or ca is not None:
        if ca is not None:
            authority = _read(ca)
        elif fingerprint is not None:
            authority = authority_with(url, fingerprint)
    if home.identity is None:
        name = name or socket.gethostname()
        if token is None and sys.stdin.isatty():
            token = typer.prompt("The token from the server's operator", hide_input=True, err=True)
    joined(home, url, token=token, name=name, authority=authority)


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"the certificate {path} cannot be read ({type(error).__name__}): name a PEM file") from None
