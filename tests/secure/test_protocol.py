"""Whoever drops out, and whenever: the exact sum of those whose contributions came, or none where the rules say so."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shoal.errors import SecureSumError
from shoal.secure import keys
from shoal.secure.graph import Graph
from shoal.secure.parameters import Shape
from shoal.secure.rehearsal import STAGES, Sent, rehearse
from shoal.secure.terms import Demand, Terms

STAYS = "stays"
FATES = (*STAGES, STAYS)
HERE, BITS = bytes(range(32)), (16, 32, 64)


def terms_of(*, bits: int, threshold: int, size: int = 3, slots: int = 2) -> Terms:
    return Terms(
        federation="test", run="protocol", session=HERE, round=3, attempt=0, model=bytes(32), plan=bytes(32),
        size=size, bits=bits, slots=slots, threshold=threshold,
    )  # fmt: skip


def contributions_of(names, terms, seed=0):
    """Any integers of the ring: what wraps in one wraps in the sum."""
    random = np.random.default_rng(seed)
    return {
        name: (
            random.integers(0, 2**terms.bits, terms.size, np.uint64).astype(f"<u{terms.bits // 8}"),
            random.integers(0, 2**64 - 1, terms.slots, np.uint64),
        )
        for name in names
    }


def added(contributions, names, terms):
    """Their sum in Python's own integers."""
    value, slots = ([sum(int(contributions[name][part][i]) for name in names) for i in range(size)]
                    for part, size in ((0, terms.size), (1, terms.slots)))  # fmt: skip
    return [entry % 2**terms.bits for entry in value], [entry % 2**64 for entry in slots]


def survivors(fates: Mapping[str, str], threshold: int, group: Callable[[list[str]], tuple[dict, int]]):
    """Whose contributions are in the sum by the rules of Bonawitz et al. 2017 and Bell et al. 2020; None for no sum.

    `group` gives who holds shares of whom, and how many of them it takes, once it is known whose keys are.
    """
    stays = {stage: {n for n, fate in fates.items() if FATES.index(fate) > i} for i, stage in enumerate(STAGES)}
    advertised, shared, masked = (stays[stage] for stage in STAGES[:3])
    if len(advertised) < threshold:
        return None
    holders, least = group(sorted(advertised))

    def have(dealers, present):
        return bool(dealers) and all(len(holders[dealer] & present) >= least for dealer in dealers)

    if len(shared) < threshold or not have(shared, shared):
        return None
    needed = {one for one in shared if one in masked or (holders[one] - {one}) & masked}
    if len(masked) < threshold or not have(needed, masked):
        return None
    asked = {one for one in stays["confirm"] if len(holders[one] & stays["confirm"]) >= least}
    return masked if have(needed, asked & stays["answer"]) else None


def everybody(threshold):
    """The rule for up to 128 clients: everybody holds for everybody, and more than half rebuild."""
    return lambda names: ({name: set(names) for name in names}, max(threshold, len(names) // 2 + 1))


def check(fates, terms, *, group=None, shape=None, threads=1, seed=0):
    """Plays a session and compares it with the rules."""
    contributions, heard = contributions_of(fates, terms, seed), list[bytes]()

    def network(sent: Sent) -> Sent:
        if sent.down and sent.stage == "advertise":
            heard.append(sent.message)
        return sent

    gone = {name: fate for name, fate in fates.items() if fate != STAYS}
    done = rehearse(terms, contributions, entropy=HERE, gone=gone, shape=shape, threads=threads, network=network)
    expected = survivors(fates, terms.threshold, group or ring_of(terms, shape, heard))
    assert not done.refused
    if expected is None:
        assert done.sum is None
        assert done.stopped.culprit is None
    else:
        assert done.stopped is None
        assert done.sum.clients == tuple(sorted(expected))
        assert done.sum.culprits == ()
        assert (done.sum.value.tolist(), done.sum.slots.tolist()) == added(contributions, expected, terms)
    return done


def ring_of(terms, shape, heard):
    """The graph of a session, of whose list of keys something was heard."""

    def group(names):
        try:
            graph = Graph(tuple(names), shape, keys.context(terms, shape, heard[0]) if heard else HERE)
        except SecureSumError:  # fewer clients than neighbours
            return {name: set() for name in names}, shape.threshold
        return {name: {names[i] for i in graph.holders(at)} for at, name in enumerate(names)}, shape.threshold

    return group


def combinations(clients: int, threshold: int):
    """Every combination of drop-outs that differs from all others by more than names.

    Where there is a sum, the order of names decides which masks are added and which are subtracted, and each
    combination is there. Where there is none nothing is left that depends on names; and a client whose keys never came
    is one that was never there, so these combinations are those of fewer clients. Of both there is one of each kind.
    """
    names = [f"client {place}" for place in range(clients)]
    seen = set()
    for chosen in itertools.product(FATES, repeat=clients):
        fates = dict(zip(names, chosen, strict=True))
        if "advertise" in chosen or survivors(fates, threshold, everybody(threshold)) is None:
            kind = tuple(sorted(Counter(chosen).items()))
            if kind in seen:
                continue
            seen.add(kind)
        yield fates


@pytest.mark.parametrize(("clients", "threshold"), [(2, 2), (3, 2), (3, 3), (4, 2), (4, 3), (5, 2), (5, 4)])
def test_every_combination_of_drop_outs_of_up_to_five_gives_the_exact_sum_or_none(clients, threshold):
    sums = 0
    for number, fates in enumerate(combinations(clients, threshold)):
        terms = terms_of(bits=BITS[number % 3], threshold=threshold)
        sums += check(fates, terms, group=everybody(threshold), threads=1 + number % 2).sum is not None
    assert sums > 0


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("stage", STAGES)
def test_one_client_that_drops_out_at_any_stage_costs_nothing(stage, bits):
    fates = {"a": STAYS, "b": stage, "c": STAYS, "d": STAYS}
    done = check(fates, terms_of(bits=bits, threshold=3, size=7), group=everybody(3))
    there = "acd" if stage in STAGES[:3] else "abcd"
    assert done.sum.clients == tuple(there)


@settings(max_examples=12)
@given(fates=st.lists(st.sampled_from([*FATES, *[STAYS] * 10]), min_size=6, max_size=24), data=st.data())
def test_any_drop_outs_of_a_complete_graph_give_the_exact_sum_or_none(fates, data):
    threshold = data.draw(st.integers(2, len(fates)))
    terms = terms_of(bits=data.draw(st.sampled_from(BITS)), threshold=threshold, size=data.draw(st.integers(1, 40)))
    named = {f"c{place}": fate for place, fate in enumerate(fates)}
    check(named, terms, group=everybody(threshold), threads=data.draw(st.sampled_from([1, 2])))


@settings(max_examples=5)
@given(
    clients=st.integers(20, 200), lost=st.floats(0, 0.3), seed=st.integers(0, 99), half=st.integers(2, 5),
    least=st.floats(0.3, 0.95), bits=st.sampled_from(BITS), threads=st.sampled_from([1, 2]),
)  # fmt: skip
@example(clients=200, lost=0.2, seed=1, half=5, least=0.5, bits=32, threads=2)
@example(clients=60, lost=0.25, seed=4, half=3, least=0.5, bits=16, threads=1)  # a sum, though some had left
@example(clients=60, lost=0.35, seed=5, half=3, least=0.5, bits=64, threads=1)  # somebody's neighbours had left
def test_any_drop_outs_of_a_sparse_graph_give_the_exact_sum_or_none(clients, lost, seed, half, least, bits, threads):
    random = np.random.default_rng(seed)
    chances = [lost / len(STAGES)] * len(STAGES) + [1 - lost]
    fates = {f"c{place}": str(random.choice(FATES, p=chances)) for place in range(clients)}
    terms = terms_of(bits=bits, threshold=int(least * clients))
    check(fates, terms, shape=Shape(2 * half, half), threads=threads, seed=seed)


@pytest.mark.parametrize(("stage", "summed"), [("share", 24), ("mask", 24), ("confirm", 27), ("answer", 27)])
def test_in_a_sparse_graph_too_a_sum_has_as_many_clients_as_the_threshold(stage, summed):
    terms, shape = terms_of(bits=16, threshold=24), Shape(6, 2)
    fates = {f"c{place}": STAYS for place in range(27)}
    enough = check(fates | dict.fromkeys(("c1", "c2", "c3"), stage), terms, shape=shape)
    assert len(enough.sum.clients) == summed
    fewer = check(fates | dict.fromkeys(("c1", "c2", "c3", "c4"), stage), terms, shape=shape)
    assert (fewer.sum is None) == (summed == 24)


def test_nothing_is_needed_of_a_client_that_left_with_all_its_neighbours():
    terms, shape, heard = terms_of(bits=16, threshold=12), Shape(4, 1), []
    names = sorted(f"c{place}" for place in range(20))
    contributions = contributions_of(names, terms)
    rehearse(terms, contributions, entropy=HERE, shape=shape, network=lambda sent: heard.append(sent) or sent)
    advertised = [sent.message for sent in heard if sent.down and sent.stage == "advertise"]
    holders, _ = ring_of(terms, shape, advertised)(names)
    gone = dict.fromkeys({"c5"} | holders["c5"], "mask")
    done = check({name: gone.get(name, STAYS) for name in names}, terms, shape=shape)
    assert len(done.sum.clients) == 15


def test_a_graph_that_the_rule_chooses_is_sparse_above_128_clients_and_gives_the_exact_sum():
    terms = terms_of(bits=32, threshold=124)
    fates = {f"c{place}": STAYS for place in range(130)} | {"c7": "mask", "c99": "answer"}
    contributions = contributions_of(fates, terms)
    done = rehearse(terms, contributions, entropy=HERE, gone={"c7": "mask", "c99": "answer"})
    assert done.sum.clients == tuple(sorted(set(fates) - {"c7"}))
    assert (done.sum.value.tolist(), done.sum.slots.tolist()) == added(contributions, done.sum.clients, terms)


@pytest.mark.parametrize("bits", BITS)
def test_long_vectors_and_two_threads_give_the_exact_sum(bits):
    terms = terms_of(bits=bits, threshold=3, size=2**20 + 3)
    contributions = contributions_of("abcd", terms)
    one, two = (rehearse(terms, contributions, entropy=HERE, gone={"c": "mask"}, threads=n).sum for n in (1, 2))
    with np.errstate(over="ignore"):
        exact = sum(contributions[name][0] for name in "abd")
    assert one.value.tobytes() == two.value.tobytes() == exact.tobytes()


def test_what_is_contributed_is_left_as_it_was():
    terms = terms_of(bits=32, threshold=2)
    contributions, again = contributions_of("ab", terms), contributions_of("ab", terms)
    rehearse(terms, contributions, entropy=HERE)
    assert all((contributions[n][part] == again[n][part]).all() for n in "ab" for part in (0, 1))


def test_the_same_entropy_gives_the_same_messages_and_another_gives_others():
    terms = terms_of(bits=32, threshold=2)

    def said(entropy):
        heard = []
        rehearse(
            terms, contributions_of("abc", terms), entropy=entropy, network=lambda sent: heard.append(sent) or sent
        )
        return [(sent.stage, sent.client, sent.down, sent.message, bytes(sent.body or b"")) for sent in heard]

    first = said(HERE)
    assert first == said(HERE)
    assert len(first) == 9 * 3
    assert not {one[3] for one in first if not one[2]} & {one[3] for one in said(bytes(32)) if not one[2]}


def test_a_message_that_does_not_arrive_is_a_client_that_drops_out():
    terms = terms_of(bits=16, threshold=2)
    contributions = contributions_of("abcd", terms)

    def network(sent):
        lost = (sent.client, sent.stage, sent.down) in {("b", "mask", False), ("d", "share", True)}
        return None if lost else sent

    done = rehearse(terms, contributions, entropy=HERE, network=network)
    assert done.sum is None  # three of four rebuild
    done = rehearse(terms, {**contributions, "e": contributions["a"]}, entropy=HERE, network=network)
    assert done.sum.clients == ("a", "c", "e")


def test_a_client_whose_message_is_changed_is_out_and_named():
    terms = terms_of(bits=16, threshold=2)
    contributions = contributions_of("abc", terms)

    def network(sent):
        changed = sent.client == "b" and sent.stage == "mask" and not sent.down
        return replace(sent, body=bytes(len(sent.body))) if changed else sent

    done = rehearse(terms, contributions, entropy=HERE, network=network)
    assert done.sum.clients == ("a", "c")
    assert done.refused["b"].culprit == "b"


def test_clients_that_demand_more_than_the_terms_do_not_take_part():
    terms = terms_of(bits=16, threshold=2)
    done = rehearse(terms, contributions_of("abc", terms), entropy=HERE, demand=Demand(clients=4, threshold=0.1))
    assert done.sum is None
    assert set(done.refused) == set("abc")
