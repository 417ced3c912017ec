"""Partitions: every row dealt once, sizes and labels as asked, and the laws they are drawn by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal import partition
from shoal.errors import DataError, SettingError

SEEDS = st.integers(0, 2**64 - 1)
LABELS = st.lists(st.integers(-1, 3), min_size=8, max_size=60)
RULES = {
    "iid": {},
    "shards": {"per_client": 2},
    "dirichlet": {"alpha": 0.3},
    "dirichlet_by_class": {"alpha": 0.3, "least": 2},
    "lognormal": {"sigma": 1.5, "least": 2},
    "power_law": {"exponent": 2.0, "least": 2},
}


def dealt(rule, y, **settings):
    """A population whose rows are numbered, so that each can be found again."""
    return getattr(partition, rule)(np.arange(len(y)), y, **settings)


@pytest.mark.parametrize("rule", RULES)
@given(labels=LABELS, clients=st.integers(1, 4), seed=SEEDS)
def test_every_row_is_dealt_exactly_once_with_its_label(rule, labels, clients, seed):
    population = dealt(rule, labels, clients=clients, seed=seed, **RULES[rule])
    assert population.names == tuple(str(number) for number in range(clients))
    rows = population.columns["x"]
    assert sorted(rows) == list(range(len(labels)))
    assert np.array_equal(population.columns["y"], np.array(labels)[rows])
    assert population.counts.min() >= RULES[rule].get("least", 1)


@pytest.mark.parametrize("rule", RULES)
def test_a_partition_is_its_seeds(rule):
    y = np.arange(400) % 5
    rows = [dealt(rule, y, clients=4, seed=seed, **RULES[rule]).columns["x"].tolist() for seed in (3, 3, 4)]
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize("rule", [*RULES, "sizes"])
def test_a_population_is_dealt_anew_with_all_its_columns(rule):
    y = np.arange(60) % 3
    hers = shoal.Population.from_arrays(np.arange(60.0)[:, None], y, groups=["a"] * 60, weight=np.arange(60) * 2)
    settings = {"sizes": [20, 30, 10]} if rule == "sizes" else {"clients": 3}
    population = getattr(partition, rule)(hers, **settings)
    assert len(population) == 3
    assert sorted(population.columns["weight"]) == list(range(0, 120, 2))
    assert np.array_equal(population.columns["weight"], population.columns["x"][:, 0] * 2)
    plain = getattr(partition, rule)(np.arange(60.0)[:, None], y, **settings)
    assert np.array_equal(plain.columns["x"], population.columns["x"])


@given(rows=st.integers(1, 50), data=st.data(), seed=SEEDS)
def test_iid_clients_differ_by_one_row_at_most(rows, data, seed):
    clients = data.draw(st.integers(1, rows))
    counts = partition.iid(np.arange(rows), clients=clients, seed=seed).counts
    assert counts.max() - counts.min() <= 1


def test_iid_labels_have_the_variance_of_draws_without_replacement():
    y = np.repeat([0, 1], [7000, 3000])
    held = [partition.iid(y, y, clients=100, seed=seed)[str(n)].rows("y").sum() for seed in range(20) for n in range(9)]
    size, share = 100, 0.3
    variance = size * share * (1 - share) * (len(y) - size) / (len(y) - 1)  # hypergeometric
    assert np.mean(held) == pytest.approx(size * share, abs=4 * np.sqrt(variance / len(held)))
    assert np.var(held) == pytest.approx(variance, rel=0.35)


@given(seed=SEEDS, clients=st.integers(2, 20), per_client=st.integers(1, 3))
def test_with_shards_a_client_holds_few_labels(seed, clients, per_client):
    y = np.repeat(np.arange(10), 60)
    population = dealt("shards", y, clients=clients, per_client=per_client, seed=seed)
    across = -(-10 // (clients * per_client)) + 1  # labels that one shard can touch
    for name in population:
        assert len(np.unique(population[name].rows("y"))) <= per_client * across
    assert population.counts.max() - population.counts.min() <= per_client


def test_mcmahans_shards_give_nearly_all_clients_two_labels_at_most():
    population = dealt("shards", np.random.default_rng(0).permutation(np.repeat(np.arange(10), 6000)))
    assert population.counts.tolist() == [600] * 100
    held = [len(np.unique(population[name].rows("y"))) for name in population]
    assert max(held) <= 2  # 200 shards of 300 cut every digit of 6,000 at its ends


@pytest.mark.parametrize("alpha", [0.2, 1.0, 20.0])
def test_a_dirichlet_clients_mixture_has_the_second_moment_of_its_law(alpha):
    share = np.array([0.5, 0.3, 0.2])
    y = np.repeat([0, 1, 2], (share * 200_000).astype(int))
    size, clients = 40, 1500  # few enough that no label runs out
    population = dealt("dirichlet", y, clients=clients, alpha=alpha, size=size, seed=1)
    assert population.counts.tolist() == [size] * clients
    counts = np.stack([np.bincount(population[name].rows("y"), minlength=3) for name in population])
    np.testing.assert_allclose(counts.mean(0) / size, share, atol=0.04)
    pairs = counts * (counts - 1) / (size * (size - 1))  # unbiased for the square of a share
    np.testing.assert_allclose(pairs.mean(0), share * (alpha * share + 1) / (alpha + 1), atol=0.04)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 10.0])
def test_by_class_the_shares_have_the_variance_of_the_dirichlet_law(alpha):
    clients, classes = 10, 300
    y = np.repeat(np.arange(classes), 200)
    population = dealt("dirichlet_by_class", y, clients=clients, alpha=alpha, seed=2)
    shares = np.stack([np.bincount(population[name].rows("y"), minlength=classes) for name in population]) / 200
    assert shares.sum() == pytest.approx(classes)
    law = (clients - 1) / (clients**2 * (clients * alpha + 1))
    assert shares.var(1).mean() == pytest.approx(law, rel=0.15)


def test_a_tiny_alpha_gives_clients_a_single_label_and_a_huge_one_gives_all_the_same():
    y = np.arange(20_000) % 4
    one = dealt("dirichlet", y, clients=40, alpha=1e-6, size=50)
    assert all(len(np.unique(one[name].rows("y"))) == 1 for name in one)
    same = dealt("dirichlet", y, clients=10, alpha=1e9, size=1000)
    for name in same:
        np.testing.assert_allclose(np.bincount(same[name].rows("y")) / 1000, 0.25, atol=0.07)


def test_by_class_every_client_gets_the_least_even_where_nobody_would_draw_it():
    population = dealt("dirichlet_by_class", np.arange(100) % 2, clients=25, alpha=1e-3, least=4)
    assert population.counts.tolist() == [4] * 25


@given(wanted=st.lists(st.integers(1, 9), min_size=1, max_size=6), spare=st.integers(0, 5), seed=SEEDS)
def test_sizes_are_those_asked_for_and_no_row_is_drawn_twice(wanted, spare, seed):
    rows = np.arange(sum(wanted) + spare)
    population = partition.sizes(rows, sizes=wanted, seed=seed)
    assert population.counts.tolist() == wanted
    drawn = population.columns["x"].tolist()
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= set(rows)


def test_a_power_laws_sizes_fall_with_the_rank():
    counts = partition.power_law(np.arange(100_000), clients=50, exponent=1.3).counts
    law = np.arange(1, 51) ** -1.3
    np.testing.assert_allclose(counts, 100_000 * law / law.sum(), atol=1)


def test_lognormal_sizes_have_the_deviation_asked_for():
    counts = partition.lognormal(np.arange(2_000_000), clients=4000, sigma=0.7).counts
    assert np.log(counts).std() == pytest.approx(0.7, rel=0.05)


@pytest.mark.parametrize("rule", ["lognormal", "power_law"])
@given(clients=st.integers(1, 12), least=st.integers(1, 4), spare=st.integers(0, 30), spread=st.floats(0, 9))
def test_sizes_by_a_law_keep_to_the_least_and_add_up(rule, clients, least, spare, spread):
    law = {"lognormal": "sigma", "power_law": "exponent"}[rule]
    rows = np.arange(clients * least + spare)
    counts = getattr(partition, rule)(rows, clients=clients, least=least, **{law: spread}).counts
    assert counts.sum() == len(rows)
    assert counts.min() >= least


@pytest.mark.parametrize("rule", RULES)
def test_one_client_takes_all_and_as_many_clients_as_rows_take_one_each(rule):
    settings = {k: v for k, v in RULES[rule].items() if k not in ("least", "per_client")}
    if rule == "shards":
        settings["per_client"] = 1
    assert dealt(rule, [0, 1, 1], clients=1, **settings).counts.tolist() == [3]
    assert dealt(rule, [0, 1, 1], clients=3, **settings).counts.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("deal", "error", "message"),
    [
        (lambda: partition.iid([1, 2, 3], clients=4), SettingError, "4 clients of at least 1 need 4 rows, and there"),
        (lambda: partition.iid([1, 2, 3], clients=0), SettingError, "at least one client, not 0"),
        (lambda: partition.iid([1, 2], clients=2.0), SettingError, "at least one client, not 2.0"),
        (lambda: partition.iid([1, 2], [1], clients=2), DataError, "column 'y' has 1 rows"),
        (lambda: partition.iid(3.0, clients=1), DataError, "column 'x' is a single value"),
        (lambda: partition.iid(dealt("iid", [0], clients=1), [0], clients=1), SettingError, "brings its labels"),
        (lambda: partition.shards([1, 2, 3, 4], clients=2), DataError, "column 'y'; there is none"),
        (lambda: partition.shards([1, 2], [[1], [2]], clients=1), DataError, r"its rows have shape \(1,\)"),
        (lambda: partition.shards([1, 2, 3], [0, 1, 2], clients=2), SettingError, "2 clients of at least 2 need 4"),
        (lambda: partition.shards([1, 2], [0, 1], clients=2, per_client=0), SettingError, "at least one shard"),
        (lambda: partition.dirichlet([1, 2], [0, 1], clients=1, alpha=0), SettingError, "alpha is over 0, not 0"),
        (lambda: partition.dirichlet([1, 2], [0, 1], clients=2, size=2), SettingError, "need 4 rows, and there are 2"),
        (lambda: partition.dirichlet_by_class([1], [0], clients=1, least=0), SettingError, "at least one row, not 0"),
        (lambda: partition.sizes([1, 2], sizes=[1, 2]), SettingError, "add up to 3 rows, and there are 2"),
        (lambda: partition.sizes([1, 2], sizes=[1, 0]), SettingError, "at least one row, not 0"),
        (lambda: partition.sizes([1, 2], sizes=[]), SettingError, "at least one client"),
        (lambda: partition.sizes([1, 2], sizes=2), SettingError, "sizes is a list, a number of rows for each client"),
        (lambda: partition.lognormal([1, 2], clients=2, sigma=-1), SettingError, "sigma of a logarithm is 0 or more"),
        (lambda: partition.power_law([1, 2], clients=2, exponent=np.inf), SettingError, "exponent of a power law"),
        (lambda: partition.power_law([1, 2], clients=2, least=2), SettingError, "2 clients of at least 2 need 4 rows"),
    ],
)
def test_what_cannot_be_dealt_is_refused_with_the_reason(deal, error, message):
    with pytest.raises(error, match=message):
        deal()


def test_the_table_counts_labels_as_a_loop_does():
    population = dealt("dirichlet", np.arange(90) % 3, clients=7, alpha=0.4)
    head, *lines = partition.summary(population).splitlines()
    assert head.split() == ["client", "rows", "0", "1", "2"]
    for name, line in zip(population, lines, strict=False):
        mine = population[name].rows("y").tolist()
        assert line.split() == [name, str(len(mine)), *(str(mine.count(label)) for label in range(3))]
    assert lines[-1].split() == ["all", "90", "30", "30", "30"]


def test_the_table_writes_labels_and_names_as_they_are():
    y = [1234567, 1234568, 1234568]
    by_number = shoal.Population.from_arrays([1, 2, 3], y, groups=["[/ward]", "[red]", ":fish:"])
    head, *lines = partition.summary(by_number).splitlines()
    assert head.split() == ["client", "rows", "1234567", "1234568"]
    assert [line.split()[0] for line in lines] == [":fish:", "[/ward]", "[red]", "all"]
    close = shoal.Population.from_arrays([1, 2], [0.1234561, 0.1234562], groups=[0, 0])
    assert partition.summary(close).splitlines()[0].split() == ["client", "rows", "0.1234561", "0.1234562"]


def test_of_many_clients_the_table_shows_twenty():
    lines = partition.summary(dealt("iid", np.arange(5000) % 2, clients=1000)).splitlines()
    assert len(lines) == 1 + 20 + 1
    assert [lines[1].split()[0], lines[-2].split()[0]] == ["0", "999"]


def test_the_picture_of_few_clients_stacks_bars_as_high_as_their_rows(tmp_path):
    population = dealt("dirichlet", np.arange(300) % 3, clients=12, alpha=0.4)
    figure = partition.picture(population, tmp_path / "cut.png")
    assert (tmp_path / "cut.png").read_bytes().startswith(b"\x89PNG")
    bars = figure.axes[0].patches
    assert len(bars) == 3 * 12
    tops = [max(bar.get_y() + bar.get_height() for bar in bars[place::12]) for place in range(12)]
    assert tops == population.counts.tolist()


def test_the_picture_of_many_clients_is_a_heat_map_of_shares():
    population = dealt("dirichlet", np.arange(3000) % 3, clients=60, alpha=0.4)
    (image,) = partition.picture(population).axes[0].images
    shares = [np.bincount(population[name].rows("y"), minlength=3) / 50 for name in population]
    np.testing.assert_allclose(image.get_array(), np.stack(shares, axis=1))


def test_the_picture_and_the_table_need_labels():
    population = partition.iid(np.arange(100.0), np.arange(100.0), clients=4)
    for look in (partition.picture, partition.summary):
        with pytest.raises(DataError, match="no label that can be counted"):
            look(population)
        with pytest.raises(DataError, match="there is no column 'z'"):
            look(population, label="z")
