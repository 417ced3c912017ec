"""Who holds for whom."""

from __future__ import annotations

import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shoal.errors import SecureSumError
from shoal.secure.graph import Graph
from shoal.secure.parameters import Shape

SEED = bytes(range(32))


def named(count: int) -> tuple[str, ...]:
    return tuple(f"site-{i}" for i in range(count))


@st.composite
def rings(draw):
    """Graphs that are not complete."""
    names = draw(st.lists(st.text(min_size=1, max_size=4), min_size=4, max_size=40, unique=True))
    neighbours = 2 * draw(st.integers(1, (len(names) - 2) // 2))
    return Graph(tuple(names), Shape(neighbours, 1), draw(st.binary(min_size=32, max_size=32)))


def edges_of(graph: Graph) -> set[frozenset[str]]:
    """By name, as their definition has them: all pairs that stand at most half the neighbours apart on the ring."""
    ring = [name for _, name in sorted((hashlib.sha256(graph.seed + n.encode()).hexdigest(), n) for n in graph.names)]
    edges = set()
    for (a, one), (b, other) in itertools.combinations(enumerate(ring), 2):
        if 2 * min(b - a, len(ring) - (b - a)) <= graph.shape.neighbours:
            edges.add(frozenset((one, other)))
    return edges


def reached(holders: dict[int, set[int]], without: set[int]) -> set[int]:
    """All that can be reached from one client over clients that are left."""
    left = set(holders) - without
    found = {min(left)}
    while True:
        more = set().union(*(holders[client] for client in found)) & left - found
        if not more:
            return found
        found |= more


@given(rings())
def test_neighbours_are_those_who_stand_near_on_the_ring_of_hashes(graph):
    built = {frozenset((name, graph.names[other])) for i, name in enumerate(graph.names) for other in graph.holders(i)}
    assert built == edges_of(graph)
    assert not graph.complete


@given(rings())
def test_holding_is_mutual_and_everyone_has_as_many_holders_in_order(graph):
    for client in range(len(graph.names)):
        holders = graph.holders(client)
        assert len(holders) == len(set(holders)) == graph.shape.neighbours
        assert list(holders) == sorted(holders) and client not in holders
        assert graph.neighbours(client) == holders
        assert all(client in graph.holders(other) for other in holders)


@pytest.mark.parametrize(("count", "neighbours"), [(9, 4), (10, 6), (8, 2)])
def test_it_takes_as_many_clients_as_neighbours_to_cut_the_ring(count, neighbours):
    """Harary 1962: no graph with so few edges stays connected under more losses."""
    graph = Graph(named(count), Shape(neighbours, 1), SEED)
    holders = {client: set(graph.holders(client)) for client in range(count)}
    for lost in itertools.combinations(range(count), neighbours - 1):
        assert len(reached(holders, set(lost))) == count - len(lost)
    assert len(reached(holders, holders[count - 1])) < count - neighbours


@given(rings(), st.randoms())
def test_who_is_next_to_whom_does_not_depend_on_the_order_of_names(graph, random):
    shuffled = list(graph.names)
    random.shuffle(shuffled)
    other = Graph(tuple(shuffled), graph.shape, graph.seed)
    for i, name in enumerate(graph.names):
        held = {other.names[j] for j in other.holders(shuffled.index(name))}
        assert held == {graph.names[j] for j in graph.holders(i)}


def test_any_two_clients_are_as_often_neighbours_over_seeds():
    names, met = named(9), [0] * 9
    for i in range(800):
        for other in Graph(names, Shape(2, 1), hashlib.sha256(i.to_bytes(2, "big")).digest()).holders(4):
            met[other] += 1
    assert met.pop(4) == 0
    assert stats.chisquare(met).pvalue > 1e-3


@given(st.integers(2, 20), st.binary(min_size=32, max_size=32))
@settings(max_examples=20)
def test_in_a_complete_graph_everybody_holds_for_everybody_and_has_masks_with_all_others(count, seed):
    graph = Graph(named(count), Shape(count - 1, 1), seed)
    assert graph.complete
    for client in range(count):
        assert graph.holders(client) == tuple(range(count))
        assert graph.neighbours(client) == tuple(i for i in range(count) if i != client)


def test_the_same_ring_everywhere():
    """What other programs, and later versions, must find too."""
    graph = Graph(("amsterdam", "bern", "cádiz", "delft", "essen", "faro", "genoa"), Shape(4, 3), SEED)
    assert [graph.holders(i) for i in range(7)] == [
        (1, 2, 4, 5),
        (0, 3, 4, 6),
        (0, 3, 5, 6),
        (1, 2, 4, 6),
        (0, 1, 3, 5),
        (0, 2, 4, 6),
        (1, 2, 3, 5),
    ]


@pytest.mark.parametrize(
    ("names", "neighbours", "seed", "what"),
    [
        (named(5), 5, SEED, "5 neighbours need 6 clients: here are 5"),
        (named(5), 3, SEED, "an even number of neighbours, not 3"),
        (named(5), 2, bytes(31), "32 bytes, not 31"),
        (("a", "b", "a"), 2, SEED, "a name comes twice"),
    ],
)
def test_what_is_no_graph_is_refused(names, neighbours, seed, what):
    with pytest.raises(SecureSumError, match=what):
        Graph(names, Shape(neighbours, 1), seed)


def test_a_graph_does_not_show_its_seed():
    assert "seed" not in repr(Graph(named(3), Shape(2, 2), SEED))
