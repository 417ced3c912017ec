"""Contributions as integers that wrap, beside the plain sum of payloads."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal import Clip, Mean, NoiseShare, Over, PlainSum, Quantize, Rotate, SecureSum, Weigh
from shoal.aggregation import Payload
from shoal.errors import SecureSumError, SettingError
from shoal.key import Key
from shoal.secure.contribution import Form, form_of, from_ring, to_ring
from shoal.vector import Layout, Part

SIZE = 6
NOTES = {"loss": 2, "accuracy": 1}


def layout(size: int = SIZE) -> Layout:
    return Layout((Part("w", (size,)),))


def chain(step: float, *, norm: float = 1.0, cap: float = 10):
    return Clip(norm) >> Weigh(cap) >> Quantize(step) >> SecureSum(threshold=2) >> Mean()


def payload(values, *, weight: int = 1, clients: int = 1, loss=(0.5, 2.0), accuracy=(1.0,)) -> Payload:
    notes = {"loss": np.array(loss, np.float32), "accuracy": np.array(accuracy, np.float32)}
    return Payload(np.array(values, np.int32), np.int32(weight), notes, np.int32(clients))


def form(bits=32, *, clients: int = 4, most: int = 100) -> Form:
    return Form(bits, SIZE, clients, most, clients * most, 10, tuple(sorted(NOTES.items())))


def secure(payloads: list[Payload], form: Form) -> Payload:
    """The payloads' sum in the ring."""
    values, slots = zip(*(to_ring(payload, form) for payload in payloads), strict=True)
    return from_ring(sum(values[1:], values[0]), sum(slots[1:], slots[0]), form)


def multiples(most: float):
    return st.integers(int(-most * 2**20), int(most * 2**20)).map(lambda n: n / 2**20)


@st.composite
def contributions(draw):
    """A form of any ring, and as many extreme contributions as it is for."""
    clients = draw(st.integers(1, 5))
    ceiling = draw(st.sampled_from([2**15 - 1, 2**31 - 1, 2**33]))
    most = draw(st.integers(1, min(ceiling // clients, 2**31 - 1)))
    bits = next(bits for bits in (16, 32, 64) if clients * most < 2 ** (bits - 1))
    entries = st.one_of(st.sampled_from([-most, most]), st.integers(-most, most))
    one = st.builds(
        payload,
        st.lists(entries, min_size=SIZE, max_size=SIZE),
        weight=st.integers(0, 10),
        loss=st.tuples(multiples(8), multiples(8)),
        accuracy=st.tuples(multiples(1)),
    )
    return form(bits, clients=clients, most=most), draw(st.lists(one, min_size=1, max_size=clients))


@given(contributions())
def test_the_sum_in_every_ring_is_the_plain_sum(given):
    form, payloads = given
    total = secure(payloads, form)
    assert total.value.tolist() == np.sum([p.value for p in payloads], axis=0, dtype=np.int64).tolist()
    assert int(total.weight) == sum(int(p.weight) for p in payloads)
    assert int(total.clients) == len(payloads)
    for name in NOTES:
        exact = sum(p.notes[name].astype(np.float64) for p in payloads)
        np.testing.assert_allclose(total.notes[name], exact, atol=len(payloads) * 2.0**-21 + 1e-6)


def test_a_sum_of_32_bits_or_less_has_the_dtypes_of_a_plain_sum():
    payloads = [payload(range(SIZE)), payload(range(SIZE))]
    plain = payloads[0] + payloads[1]
    for bits in (16, 32):
        total = secure(payloads, form(bits))
        assert total.value.dtype == plain.value.dtype
        assert np.array_equal(total.value, plain.value)
        assert all(total.notes[name].dtype == np.float32 for name in NOTES)


@given(
    step=st.floats(1e-9, 1),
    norm=st.floats(1e-3, 10),
    clients=st.integers(2, 2000),
    rounding=st.sampled_from(["nearest", "stochastic"]),
    place=st.integers(0, SIZE - 1),
    sign=st.sampled_from([-1, 1]),
)
def test_honest_clients_at_the_bound_never_wrap_and_are_never_refused(step, norm, clients, rounding, place, sign):
    whole = Clip(norm) >> Quantize(step, rounding) >> SecureSum(threshold=2) >> Mean()
    if norm / step >= 2**30:
        return
    form = form_of(whole, layout(), notes={}, clients=clients)
    longest = np.zeros(SIZE, np.float32)
    longest[place] = sign * norm * 5
    sent, _ = whole.encode(
        longest, examples=np.int32(1), notes={}, states=whole.start(layout()), key=Key.from_seed(clients),
        layout=layout(),
    )  # fmt: skip
    value, slots = to_ring(sent, form)
    total = from_ring(value * value.dtype.type(clients), slots * np.uint64(clients), form)
    assert total.value.tolist() == [clients * int(entry) for entry in sent.value]
    assert int(total.clients) == int(total.weight) == clients


@pytest.mark.parametrize(("clients", "bits"), [(327, 16), (328, 32), (21_474_836, 32), (21_474_837, 64)])
def test_the_ring_is_the_smallest_that_cannot_wrap(clients, bits):
    form = form_of(chain(1.0, norm=100), layout(), notes={}, clients=clients)
    assert form.most == 100
    assert form.bits == bits


def test_a_chain_whose_integers_do_not_fit_is_refused_with_what_to_do():
    with pytest.raises(SettingError, match="larger step"):
        form_of(chain(1e-10), layout(), notes={}, clients=3)
    with pytest.raises(SettingError, match="Quantize"):
        form_of(PlainSum() >> Mean(), layout(), notes={}, clients=3)


def test_slots_are_the_clients_the_weight_and_the_notes_by_name():
    _, slots = to_ring(payload([0] * SIZE, weight=7, loss=(0.5, -2.0), accuracy=(1.0,)), form())
    assert slots.view(np.int64).tolist() == [1, 7, 2**20, 2**19, -(2**21)]
    assert form().slots == len(slots)


def test_a_note_that_is_not_sent_counts_as_zeros():
    sent = replace(payload([1] * SIZE), notes={"loss": np.array([1.0, 1.0], np.float32)})
    total = secure([sent, payload([1] * SIZE)], form())
    assert total.notes["accuracy"].tolist() == [1.0]
    assert total.notes["loss"].tolist() == [1.5, 3.0]


REFUSED = {
    "an entry over the bound": (payload([101, *[0] * 5]), "entry"),
    "an entry under the bound": (payload([-101, *[0] * 5]), "entry"),
    "the lowest integer there is": (payload([-(2**31), *[0] * 5]), "entry"),
    "too few entries": (payload([0] * 5), "6 integers"),
    "floats": (replace(payload([0] * 6), value=np.zeros(6, np.float32)), "integers"),
    "a weight over the cap": (payload([0] * 6, weight=11), "weight"),
    "a negative weight": (payload([0] * 6, weight=-1), "weight"),
    "a weight that is not a number": (replace(payload([0] * 6), weight=np.float32(math.nan)), "weight"),
    "a weight between two numbers": (replace(payload([0] * 6), weight=np.float32(1.5)), "weight"),
    "two clients in one": (payload([0] * 6, clients=2), "one client"),
    "nobody, who says something": (payload([1, *[0] * 5], weight=0, clients=0, loss=(0, 0), accuracy=(0,)), "zeros"),
    "nobody with a metric": (payload([0] * 6, weight=0, clients=0, loss=(0, 1), accuracy=(0,)), "zeros"),
    "a metric that is not a number": (payload([0] * 6, loss=(math.nan, 1)), "finite"),
    "an infinite metric": (payload([0] * 6, loss=(math.inf, 1)), "finite"),
    "a metric that is too large": (payload([0] * 6, loss=(2.0**42, 1)), "under"),
    "a metric with another length": (payload([0] * 6, accuracy=(1, 2)), "accuracy"),
    "an unknown metric": (replace(payload([0] * 6), notes={"secret": np.zeros(1)}), "secret"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_plan_does_not_declare_is_refused(case):
    wrong, said = REFUSED[case]
    with pytest.raises(SecureSumError, match=said):
        to_ring(wrong, form())


def test_a_client_that_contributes_nothing_is_zeros():
    value, slots = to_ring(payload([0] * 6, weight=0, clients=0, loss=(0, 0), accuracy=(0,)), form())
    assert not value.any()
    assert not slots.any()


def test_a_sum_that_no_honest_clients_can_have_is_refused():
    value, slots = to_ring(payload([100] * 6), form())
    with pytest.raises(SecureSumError, match="clients"):
        from_ring(value, slots * np.uint64(5), form())
    with pytest.raises(SecureSumError, match="weights"):
        from_ring(value, slots + np.array([0, 10, 0, 0, 0], np.uint64), form())
    with pytest.raises(SecureSumError, match="entry"):
        from_ring(value * np.uint32(5), slots, form())


def test_shares_of_noise_are_within_reach_alone_and_together():
    clients, size, step = 50, 2000, 1 / 64
    whole = (
        Clip(1.0) >> Quantize(step) >> NoiseShare(2.0, at_least=40)
        >> SecureSum(threshold=40) >> Over(clients=clients)
    )  # fmt: skip
    form = form_of(whole, layout(size), notes={}, clients=clients)
    plain = np.zeros(size, np.int64)
    values, slots = np.zeros(size, f"<u{form.bits // 8}"), np.zeros(2, np.uint64)
    for client in range(clients):
        sent, _ = whole.encode(
            np.ones(size, np.float32), examples=np.int32(1), notes={}, states=whole.start(layout(size)),
            key=Key.from_seed(client), layout=layout(size),
        )  # fmt: skip
        value, slot = to_ring(sent, form)
        values, slots, plain = values + value, slots + slot, plain + sent.value
    assert from_ring(values, slots, form).value.tolist() == plain.tolist()
    deviation = 2.0 * whole.sensitivity(layout(size)) / step / math.sqrt(40)
    assert 8 * deviation < form.most < 64 + 14 * deviation
    assert form.reach < clients * form.most


def test_a_rotated_contribution_fits_in_16_bits_where_the_plain_one_does_not():
    size, clients = 5000, 20
    plain = Clip(1.0) >> Quantize(1e-3) >> SecureSum(threshold=2) >> Mean()
    turned = Clip(1.0) >> Rotate() >> Quantize(1e-3) >> SecureSum(threshold=2) >> Mean()
    forms = [form_of(whole, layout(size), notes={}, clients=clients * 2) for whole in (plain, turned)]
    assert [form.bits for form in forms] == [32, 16]
    payloads, exact = [], np.zeros(size)
    for client in range(clients):
        value = np.zeros(size, np.float32)
        value[client * 7] = 1  # the longest entry that there can be
        exact += value
        sent, _ = turned.encode(
            value, examples=np.int32(1), notes={}, states=turned.start(layout(size)), key=Key.from_seed(client),
            layout=layout(size),
        )  # fmt: skip
        payloads.append(sent)
    released = turned.decode(secure(payloads, forms[1]), key=Key.from_seed(0), layout=layout(size))
    np.testing.assert_allclose(released.value * clients, exact, atol=6e-4 * math.sqrt(clients) * 5)
