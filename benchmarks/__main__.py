"""`python -m benchmarks NAME [--json] [--only ROW] [--quick]`: measures, and says whether each figure holds."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.report import Report

NAMES = ("engine", "network", "privacy", "secure")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", metavar="ROW", help="only rows whose name contains ROW")
    parser.add_argument("--quick", action="store_true", help="under a minute, with wider noise")
    given = parser.parse_args()
    report = Report(given.name)
    importlib.import_module(f"benchmarks.{given.name}").run(report, only=given.only or "", quick=given.quick)
    print(report.json() if given.json else report.table())
    return 0 if report.rows else 2


if __name__ == "__main__":
    sys.exit(main())
