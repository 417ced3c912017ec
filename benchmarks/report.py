"""Rows of a benchmark: a value, what was measured beside it in the same run, and what was asked."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import version


@dataclass(frozen=True)
class Row:
    """`ratio` is value / reference; `bound` is the most it (or, without a reference, the value) may be."""

    name: str
    value: float
    unit: str
    reference: float | None = None
    ratio: float | None = None
    bound: float | None = None
    holds: bool | None = None


@dataclass
class Report:
    """The rows of one benchmark, and the machine they were measured on."""

    name: str
    rows: list[Row] = field(default_factory=list)

    def add(
        self, name: str, value: float, unit: str, *, reference: float | None = None, bound: float | None = None
    ) -> None:
        """Adds a row and tells it on stderr."""
        ratio = None if reference is None else value / reference
        judged = value if ratio is None else ratio
        row = Row(name, value, unit, reference, ratio, bound, None if bound is None else judged <= bound)
        self.rows.append(row)
        print(_line(row), file=sys.stderr, flush=True)

    def json(self) -> str:
        """One JSON object."""
        return json.dumps({"benchmark": self.name, "machine": machine(), "rows": [asdict(row) for row in self.rows]})

    def table(self) -> str:
        """A line a row."""
        return "\n".join([" ".join(f"{k}={v}" for k, v in machine().items()), *map(_line, self.rows)])


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "numpy")},
    }


def _line(row: Row) -> str:
    reference = "" if row.reference is None else f"   beside {row.reference:.4g} {row.unit}, ratio {row.ratio:.3g}"
    bound = (
        "" if row.bound is None else f"   asked at most {row.bound:.3g}: {'holds' if row.holds else 'DOES NOT HOLD'}"
    )
    return f"{row.name:<44} {row.value:.4g} {row.unit}{reference}{bound}"
