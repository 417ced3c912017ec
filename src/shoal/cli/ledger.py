"""`shoal ledger`: what ever left a site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from shoal.cli.homes import only_home
from shoal.cli.tables import moment, print_json, show
from shoal.client.ledger import Entry, Ledger

SHOWN = 20

HomeFolder = Annotated[Path | None, typer.Option("--home", help="The client's home; the one in ~/.shoal if not said.")]


def command(
    home: HomeFolder = None,
    export: Annotated[Path | None, typer.Option(help="Write all entries to a new file.jsonl or file.csv.")] = None,
    everything: Annotated[bool, typer.Option("--all", help=f"Print all entries, not the last {SHOWN}.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print what left this site and why, and whether the ledger is whole."""
    with Ledger.existing((home or only_home()) / "ledger.db") as ledger:
        wrong, head, traffic = ledger.verify(), ledger.head(), ledger.traffic_by_day()
        entries = list(ledger.entries(after=0 if everything or as_json else max(0, head.seq - SHOWN)))
        if export is not None:
            ledger.export(export)
    if as_json:
        print_json({
            "entries": [asdict(entry) for entry in entries], "traffic": [asdict(day) for day in traffic],
            "head": asdict(head), "wrong": wrong,
        })  # fmt: skip
    else:
        verdicts = {entry.task: entry.detail for entry in entries if entry.kind == "verdict"}
        rows = [_row(entry, verdicts) for entry in entries if entry.kind != "verdict"]
        show(
            ("time", "what", "run", "round", "bytes", "verdict", "contents"),
            rows,
            nothing="Nothing has left this site.",
        )
        messages, sent = sum(day.messages for day in traffic), sum(day.bytes for day in traffic)
        print(f"\n{head.seq} entries, {messages:,} messages of {sent:,} bytes in all; head {head.hash or 'none'}")
        print("; ".join(wrong) or "The ledger is whole.")
    if wrong:
        raise typer.Exit(1)


def _row(entry: Entry, verdicts: Mapping[str, str]) -> tuple[str, ...]:
    number = "" if entry.round is None else str(entry.round + 1)
    size = f"{entry.bytes:,}" if entry.kind in ("result", "keys") else ""
    verdict = verdicts.get(entry.task, "") if entry.kind == "result" else ""
    return moment(entry.time), entry.kind, entry.run_name, number, size, verdict, entry.detail
