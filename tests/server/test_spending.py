"""Every release is in the ledger before it is made, and no release is made that the budget does not hold."""

from __future__ import annotations

import asyncio
import math
from statistics import NormalDist

import pytest

import shoal
from shoal import Budget, Clip, DiscreteGaussian, Gaussian, Mean, Over, PlainSum, Quantize, models, private_mean
from shoal.errors import BudgetError, SettingError
from shoal.privacy import Releases, spent, together
from shoal.privacy.budget import event_of, releases_of
from shoal.rounds.rules import Rules
from shoal.server.coordinator import Coordinator
from shoal.server.spending import Spending
from shoal.steps import AdaptiveClip, LocalLaplace
from shoal.store.blobs import Blobs
from shoal.store.store import open_store
from shoal.testing import Fleet
from tests.conftest import classification

BUDGET = Budget(epsilon=4.0, delta=1e-6)
SITES = classification(sizes=(9, 9, 9))


@pytest.fixture
def store():
    opened = open_store("memory:")
    yield opened
    opened.close()


def plan(multiplier=None, *, rounds=3, chain=None):
    noised = Clip(1.0) >> PlainSum() >> Gaussian(multiplier or 10.0, clients=3)
    return shoal.Plan(shoal.FedAvg(models.logistic(4), aggregation=chain or noised), rounds=rounds)


def record(spending, made, round=0):
    async def one():
        await spending.record(made, run="r", round=round, attempt=0, time=1.0)

    asyncio.run(one())


def delta_of(multiplier, epsilon):
    """Delta of normal noise at epsilon (Balle and Wang 2018, theorem 8)."""
    phi, half = NormalDist().cdf, 1 / (2 * multiplier)
    return phi(half - epsilon * multiplier) - math.exp(epsilon) * phi(-half - epsilon * multiplier)


def epsilon(*given):
    """What rounds of multipliers spend together: as normal noise of their joined width."""
    joined = sum(rounds / multiplier**2 for multiplier, rounds in given) ** -0.5
    return spent(Releases(joined, 1), delta=BUDGET.delta).epsilon


def test_a_release_has_its_row_and_a_plan_without_noise_has_none(store):
    spending = Spending(store)
    record(spending, plan(5.0))
    record(spending, plan(chain=PlainSum() >> Mean()))
    record(spending, plan(5.0))
    rows = store.read("ledger")
    assert [(row["run"], row["round"], row["event"]) for row in rows] == [("r", 0, event_of(plan(5.0)))] * 2


def test_what_a_recipe_plans_for_an_epsilon_fits_into_a_budget_of_it_to_the_last_round(store):
    for chain in (
        private_mean(epsilon=4, delta=1e-6, norm=1.0, rounds=5, clients=3),
        private_mean(epsilon=4, delta=1e-6, norm=1.0, rounds=5, clients=3, threshold=3),
    ):
        made, spending = plan(chain=chain, rounds=5), Spending(store, BUDGET)
        spending.check(made, ())
        spending = Spending(open_store("memory:"), BUDGET)
        for round in range(5):
            record(spending, made, round)
        with pytest.raises(BudgetError, match="is spent: with one more round of this run it would be epsilon 4"):
            record(spending, made, 5)


def test_a_restart_replays_the_ledger_and_never_resets_it(store):
    made = plan(4.0, rounds=2)
    record(Spending(store, BUDGET), made)
    again = Spending(store, BUDGET)
    most = next(n for n in range(100) if delta_of(4 / math.sqrt(n + 1), BUDGET.epsilon) > BUDGET.delta)
    with pytest.raises(BudgetError, match=f"{most - 1:,} of them fit"):
        again.check(plan(4.0, rounds=most), ())
    again.check(plan(4.0, rounds=most - 1), ())
    assert "is spent" in Spending(store, Budget(0.5, 1e-6)).why_not(made)


def test_a_refusal_says_what_is_spent_what_is_planned_and_what_it_would_be(store):
    spending = Spending(store, BUDGET)
    record(spending, plan(6.0))
    with pytest.raises(BudgetError) as refused:
        spending.check(plan(3.0, rounds=6), [(plan(5.0), 4)])
    one, two, three = epsilon((6.0, 1)), epsilon((6.0, 1), (5.0, 4)), epsilon((6.0, 1), (5.0, 4), (3.0, 6))
    assert f"Spent is epsilon {one:.4g}, {two:.4g} with what open runs plan, and it would be {three:.4g}" in str(
        refused.value
    )
    spending.check(plan(3.0, rounds=6), ())


def test_integer_noise_and_normal_noise_are_added_up(store):
    spending = Spending(store, BUDGET)
    grid = plan(chain=Clip(1.0) >> Quantize(0.01) >> PlainSum() >> DiscreteGaussian(6.0, clients=3))
    record(spending, grid)
    record(spending, plan(6.0))
    grid_spent, normal = together([releases_of(event_of(one), 1) for one in (grid, plan(6.0))], delta=1e-6), (6.0, 2)
    assert epsilon(normal) < grid_spent.epsilon < 1.2 * epsilon(normal)
    tight = Spending(store, Budget(grid_spent.epsilon * 1.0001, 1e-6))
    assert "is spent" in tight.why_not(grid)


def test_a_server_with_a_budget_refuses_a_plan_whose_epsilon_nobody_knows(store):
    plain, spending = plan(chain=PlainSum() >> Mean()), Spending(store, BUDGET)
    for refused in (lambda: spending.check(plain, ()), lambda: record(spending, plain)):
        with pytest.raises(BudgetError, match="whose epsilon is known: no noise is added before Mean"):
            refused()
    Spending(store).check(plain, ())
    own = plan(chain=LocalLaplace(1.0, 1.0) >> PlainSum() >> Over(clients=3))
    with pytest.raises(BudgetError, match="each contribution is private by itself"):
        spending.check(own, ())
    Spending(store).check(own, ())
    record(Spending(store), own)

    class Mine(AdaptiveClip):
        pass

    with pytest.raises(SettingError, match="what Mine gives away"):
        Spending(store).check(plan(chain=Mine(1.0) >> PlainSum() >> Gaussian(1.0, clients=3)), ())
    assert store.read("ledger") == []


def run(store, folder, made, *, budget=None, before=None, rules=None):
    """A run from beginning to end, or one that is there resumed; what the operator sees of it, and the ledger."""

    async def whole():
        coordinator = Coordinator(store, Blobs(folder), federation="f", budget=budget)
        await coordinator.start([made])
        fleet = Fleet(coordinator, made, {name: SITES[name] for name in SITES.names})
        try:
            if store.read("runs"):
                begun = (await coordinator.command("run", "resume")).id
            else:
                begun = await coordinator.submit(made, name="run", rules=rules or Rules(at_least=3), seed=0)
            if before is not None:
                await before(coordinator)
            fleet.start()
            return await asyncio.wait_for(coordinator.until_over(begun), 60), coordinator.ledger()
        finally:
            await fleet.stop()
            await coordinator.stop()

    return asyncio.run(whole())


def test_a_run_has_a_row_for_each_round(store, tmp_path):
    view, ledger = run(store, tmp_path, plan(2.0), budget=Budget(9.0, 1e-6))
    assert view.status == "completed"
    assert [(row["round"], row["attempt"]) for row in store.read("ledger")] == [(0, 0), (1, 0), (2, 0)]
    (found,) = ledger.runs
    assert (found.name, found.round, found.releases) == ("run", 3, {event_of(plan(2.0)): 3})


@pytest.mark.parametrize("rules", [Rules(at_least=3), Rules(at_least=3, buffer=3)], ids=["rounds", "buffered"])
def test_a_round_that_would_overspend_does_not_open_and_the_run_says_why(store, tmp_path, rules):
    made = plan(chain=private_mean(epsilon=4, delta=1e-6, norm=1.0, rounds=3, clients=3))

    async def before(coordinator):
        await coordinator._services.spending.record(made, run="r", round=0, attempt=0, time=1.0)

    view, _ = run(store, tmp_path, made, budget=BUDGET, before=before, rules=rules)
    assert (view.status, view.round) == ("failed", 2)
    assert view.reason.startswith("the budget of this federation, epsilon 4 at delta 1e-06, is spent")
    assert all(past.status == "closed" for past in view.history)
    assert len(store.read("ledger")) == 3
    view, _ = run(store, tmp_path, made, budget=BUDGET)
    assert (view.status, view.round) == ("failed", 2)
    view, _ = run(store, tmp_path, made, budget=Budget(5.0, 1e-6))
    assert (view.status, view.round) == ("completed", 3)
    assert len(store.read("ledger")) == 4


def test_a_run_that_would_overspend_is_not_begun(store, tmp_path):
    with pytest.raises(BudgetError, match="the budget of this federation is epsilon 4 at delta 1e-06"):
        run(store, tmp_path, plan(1.0), budget=BUDGET)
    assert store.read("runs") == []


def test_the_model_of_a_run_is_another_each_time(store, tmp_path):
    states = list[bytes]()
    for number in range(2):
        here = open_store("memory:")
        run(here, tmp_path / str(number), plan(1.0, rounds=1))
        states.append(bytes(here.read("runs")[0]["state"]))
        here.close()
    assert states[0] != states[1]
