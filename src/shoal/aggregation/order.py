"""The order of a chain, checked when it is built: each refusal says what was wanted, what came, and the fix.

The type checker refuses the same chains before they run; this table is for code without types. It fails
closed: a chain that does not fit is never an object.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from shoal.aggregation.kinds import Bounded, Free, Grid, Kind, Local, Shares
from shoal.errors import OrderError

if TYPE_CHECKING:
    from shoal.aggregation.step import Step


def kind_after(steps: tuple[Step[Any, Any], ...]) -> Kind:
    """The kind of one client's value after the steps; OrderError if one does not fit."""
    kind: Kind = Free
    for place, step in enumerate(steps):
        if not issubclass(kind, step.takes):
            refuse(step, kind, steps[:place])
        kind = step.gives or kind
    return kind


def joined(steps: tuple[Step[Any, Any], ...], other: Any) -> Any:
    """What a chain becomes with a sum after it; OrderError for anything else."""
    if hasattr(other, "after"):
        return other.after(steps)
    name = type(other).__name__
    if hasattr(other, "takes"):
        raise OrderError(
            f"{name} finishes a sum, and here nothing is added up yet: put a sum before it, "
            f"for example ... >> PlainSum() >> {name}(...)"
        )
    raise OrderError(f"a chain goes on with a step or a sum, not with a {name}")


def refuse(part: Any, kind: Kind, before: tuple[Step[Any, Any], ...] = ()) -> NoReturn:
    """Raises the OrderError of a part that cannot take values of a kind."""
    name = type(part).__name__
    wanted = " or ".join(taken.__name__ for taken in part.takes)
    raise OrderError(f"{name} takes {wanted} values, here they are {kind.__name__}: {_fix(part, kind, before)}")


def refuse_after_sum(part: Any) -> NoReturn:
    """Raises the OrderError of something that cannot follow a sum."""
    name = type(part).__name__
    raise OrderError(
        f"{name} works on one client's value, and after the sum there is none: put {name} before the sum"
        if hasattr(part, "encode")
        else f"a sum is followed by a finish such as Mean(), not by a {name}"
    )


def _fix(part: Any, kind: Kind, before: tuple[Step[Any, Any], ...]) -> str:
    name, finishes = type(part).__name__, hasattr(part, "finish")
    on_client = hasattr(part, "encode")
    if kind is Shares:
        if finishes:
            return "the noise is in the sum already, and only a public divisor is safe: finish with Over(clients=...)"
        if on_client:
            return f"put {name} before Quantize and NoiseShare"
        return "each share alone has too little noise to be seen: add them with SecureSum(threshold=...)"
    if kind is Local:
        if finishes:
            return "the noise is in it already, and only a public divisor is safe: finish with Over(clients=...)"
        last = type(before[-1]).__name__
        if on_client:
            return f"it would change what {last} has made private: put {name} before {last}"
        return f"{last} has made each contribution private by itself: add them with PlainSum()"
    if kind is Grid:
        if on_client and part.gives is Local:
            return f"its noise is on floats: leave Quantize out before {name}"
        if on_client:
            return f"it works on floats: put {name} before Quantize"
        if finishes:
            return "no noise is in this sum: put NoiseShare(...) after Quantize, or finish with Gaussian or Mean"
        return f"it looks at each float vector: leave Quantize out before {name}"
    if finishes and Local in part.takes:
        return "no noise is in this sum: put LocalGaussian(...) before it, or finish with Gaussian or Mean"
    if Bounded in part.takes:
        return f"put Clip(norm) before it, so that one client's norm is known{_lost_bound(before)}"
    if kind is Free:
        return f"it works on integers of a known range: put Clip(norm) >> Quantize(step) before it{_lost_bound(before)}"
    return "it works on integers: put Quantize(step) before it"


def _lost_bound(before: tuple[Step[Any, Any], ...]) -> str:
    """Why a chain that did clip is not bounded any more."""
    if not any(step.gives is Bounded for step in before):
        return ""
    last = next(type(step).__name__ for step in reversed(before) if step.gives is Free)
    return f" ({last} adds to the value, so a bound from before it does not hold: clip after {last})"
