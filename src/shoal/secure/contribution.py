"""A client's contribution as integers that wrap, and their sum as the payload that it is the sum of.

Nothing is clipped here and nothing is rounded but notes: what a plan does not declare is refused, so that what honest
clients add up to cannot wrap, and is the sum that they would have without masks, integer by integer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from shoal.aggregation import Aggregation, Discretizes, Payload
from shoal.aggregation.step import Noises
from shoal.errors import SecureSumError, SettingError
from shoal.secure.ring import Bits, Ring, dtype
from shoal.vector import Array, Layout

NOTE_BITS = 20
"""A note is a multiple of 2**-20, rounded to the nearest."""
_UNLIKELY = 61 * math.log(2)
"""A draw that is further out than a reach comes once in 2**60 vectors, to one side or the other."""


@dataclass(frozen=True)
class Form:
    """What every contribution to a sum of at most `clients` clients looks like.

    `size` entries modulo 2**`bits`; each is at most `most` in size for one client and `reach` for all. Slots modulo
    2**64: how many clients, their weight, at most `cap` each, then the `notes`, by name, with their lengths.
    """

    bits: Bits
    size: int
    clients: int
    most: int
    reach: int
    cap: int
    notes: tuple[tuple[str, int], ...]

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return 2 + sum(length for _, length in self.notes)


def form_of(aggregation: Aggregation, layout: Layout, *, notes: Mapping[str, int], clients: int) -> Form:
    """The form with the smallest integers in which at most so many honest clients cannot make a sum wrap.

    `notes` are the lengths of the notes that clients send, by name. SettingError if 64 bits are not enough, or if the
    contribution of one client does not fit in the 32 bits that a grid has.

    >>> from shoal import Clip, Mean, Quantize, SecureSum
    >>> from shoal.vector import Part
    >>> chain = Clip(1.0) >> Quantize(0.01) >> SecureSum(threshold=3) >> Mean()
    >>> layout = Layout((Part("w", (10,)),))
    >>> [form_of(chain, layout, notes={"loss": 2}, clients=n).bits for n in (300, 400)]
    [16, 32]
    """
    most, noise = _largest_entry(aggregation, layout), _noise_variance(aggregation, layout)
    size = aggregation.sent(layout).size
    rare = _UNLIKELY + math.log(max(size, 1))
    one = most + _noise_reach(noise, rare)
    reach = min(clients * one, clients * most + _noise_reach(clients * noise, rare))
    if one >= 2**31 or reach >= 2**63:
        raise SettingError(
            f"{aggregation} lets a client send integers up to {one:.3g}, and {clients} clients have a sum up to "
            f"{reach:.3g}, which is too much for 32 and 64 bits: use a larger step in Quantize, or clip lower"
        )
    bits = cast("Bits", next(bits for bits in (16, 32, 64) if reach < 2 ** (bits - 1)))
    lengths = tuple(sorted(notes.items()))
    return Form(bits, size, clients, one, reach, math.ceil(aggregation.cap), lengths)


def to_ring(payload: Payload, form: Form) -> tuple[Ring, Ring]:
    """The entries and slots of one client's contribution; SecureSumError, never with a value, if it is not as declared.

    A note that the payload does not have counts as zeros.
    """
    value = np.asarray(payload.value)
    if value.dtype.kind != "i" or value.shape != (form.size,):
        raise SecureSumError(f"a contribution is {form.size} integers here, not {value.dtype} of shape {value.shape}")
    if value.size and max(int(value.max()), -int(value.min())) > form.most:
        raise SecureSumError(f"an entry of the contribution is over {form.most}, the most that the plan declares")
    slots = np.concatenate([_counts(payload, form), *_fixed_points(payload.notes, form)])
    if not slots[0] and (value.any() or slots.any()):
        raise SecureSumError("a contribution that counts for no client is nothing but zeros, and this one is not")
    return value.astype(dtype(form.bits)), slots.astype(np.uint64)


def from_ring(value: Ring, slots: Ring, form: Form) -> Payload:
    """The payload that a sum is; SecureSumError if no honest clients, up to `form.clients`, can have this sum."""
    signed = value.view(f"<i{form.bits // 8}")
    integers = signed.astype(np.int32 if form.bits <= 32 else np.int64)
    clients, weight, *noted = (int(slot) for slot in slots.view(np.int64))
    if not (0 <= clients <= form.clients and 0 <= weight <= clients * form.cap):
        raise SecureSumError(
            "the clients and weights of this sum are not possible: somebody sent what no plan declares"
        )
    if integers.size and max(int(integers.max()), -int(integers.min())) > form.reach:
        raise SecureSumError(f"an entry of this sum is over {form.reach}: somebody sent what no plan declares")
    floats, notes, place = np.array(noted, np.float64) * 2.0**-NOTE_BITS, dict[str, Array](), 0
    for name, length in form.notes:
        notes[name] = floats[place : place + length].astype(np.float32)
        place += length
    return Payload(integers, np.int64(weight), notes, np.int32(clients))


def _counts(payload: Payload, form: Form) -> Any:
    """How many clients, and the weight."""
    clients, weight = float(payload.clients), float(payload.weight)
    if clients not in (0, 1):
        raise SecureSumError("a contribution counts for one client, or for none if it is nothing but zeros")
    if not (weight.is_integer() and 0 <= weight <= form.cap):
        raise SecureSumError(
            f"the weight of a contribution is a whole number from 0 to {form.cap}, its cap in the plan"
        )
    return np.array([clients, weight], np.int64)


def _fixed_points(notes: Mapping[str, Any], form: Form) -> list[Any]:
    """The notes as integers, in the form's order."""
    declared, most = dict(form.notes), 2 ** (63 - NOTE_BITS) // form.clients
    unknown = notes.keys() - declared
    if unknown:
        raise SecureSumError(f"a contribution to this sum has the notes {', '.join(declared) or 'none'}, not {unknown}")
    integers: list[Any] = []
    for name, length in form.notes:
        note = np.asarray(notes.get(name, np.zeros(length)), np.float64)
        if note.shape != (length,):
            raise SecureSumError(f"the note {name!a} has {length} numbers, not the shape {note.shape}")
        if not (np.abs(note) < most).all():  # not true of NaN either
            raise SecureSumError(f"the note {name!a} holds a number that is not finite, or not under {most}")
        integers.append(np.rint(note * 2.0**NOTE_BITS).astype(np.int64))
    return integers


def _largest_entry(aggregation: Aggregation, layout: Layout) -> int:
    """The largest integer, in size, that an entry of one client can be before noise."""
    bounds = aggregation.bounds(layout)
    for before, step, bound in zip(aggregation.steps, aggregation.steps[1:], bounds, strict=False):
        if isinstance(step, Discretizes):
            return step.reach(before.entry(bound, layout))
        layout = before.after(layout)
    raise SettingError(f"a secure sum adds integers: put Clip(norm) >> Quantize(step) into {aggregation}")


def _noise_variance(aggregation: Aggregation, layout: Layout) -> float:
    """The variance of one client's noise, in units of the grid."""
    bound = aggregation.sensitivity(layout)
    return sum(
        (step.deviation(bound) / aggregation.unit) ** 2 for step in aggregation.steps if isinstance(step, Noises)
    )


def _noise_reach(variance: float, rare: float) -> int:
    """What Skellam noise exceeds, to one side, with a probability of at most exp(-rare).

    Its tail is sub-gamma with a scale of 1/3 (Boucheron, Lugosi and Massart 2013, section 2.4).
    """
    return math.ceil(math.sqrt(2 * variance * rare) + rare / 3) if variance else 0
