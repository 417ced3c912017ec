"""An agent does its tasks once, whatever stops it, and nothing before the policy says yes."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time

import jax
import numpy as np
import pytest

import shoal
from shoal import models
from shoal.algorithms import enter, open_round, start
from shoal.client import work
from shoal.client.agent import Agent
from shoal.client.events import Away, Refused, Settled, Stopped, Trained
from shoal.client.identity import Home
from shoal.client.journal import Journal
from shoal.client.policy import Policy, PolicyFile
from shoal.errors import DataError, ServerError, StoreError, SupersededError
from shoal.store.blobs import Blobs
from shoal.wire.messages import Verdict
from shoal.wire.payloads import pack_tree
from shoal.wire.plans import plan_bytes
from tests.client.files import held_open
from tests.client.server import Refusal, busy, cut
from tests.client.site import COLUMNS, PLAN, Data, info, task

SPARSE = shoal.Remember(shoal.TopK(0.4)) >> shoal.PlainSum() >> shoal.Mean()
REMEMBERING = shoal.Plan(shoal.FedAvg(models.logistic(4), aggregation=SPARSE), rounds=3)


def expected(plan, given, *, state=None):
    container = pack_tree(
        jax.tree.map(np.asarray, open_round(plan.algorithm, start(plan.algorithm, shoal.Key.from_seed(given.round))))
    )
    data = work.prepared(plan.algorithm, COLUMNS, name="a")
    return work.turn(plan.algorithm, container, data, key=given.key, state=state).done()


@pytest.mark.parametrize("inline", [True, False])
def test_an_agent_learns_of_a_run_takes_a_task_and_reports_what_a_simulated_client_would(server, site, inline):
    server.runs, server.tasks = [info()], [task(server, inline=inline)]
    site.steps(2)
    given = server.tasks[0]
    assert server.results[given.task][1] == expected(PLAN, given).payload
    assert site.settled() == [(given.task, "counted")]
    assert [kind for kind, _, _ in site.ledger()] == ["enroll", "result", "verdict"]
    assert any("blobs" in request for request in server.requests) is not inline
    assert site.data.loads == 1


def test_blobs_and_results_are_removed_when_nobody_asks_for_them_any_more(server, site):
    server.runs, server.tasks = [info()], [task(server)]
    site.steps(3)
    assert list(Blobs(site.home.folder / "blobs").ids()) == []


def test_nothing_is_touched_before_the_policy_says_yes_and_the_server_hears_of_the_refusal(server, site):
    site.options["policy"] = Policy(allow=["another *"])
    server.runs, server.tasks = [info()], [task(server)]
    site.steps(3)
    assert server.check_ins[-1].refuses == ("r1",) and server.results == {}
    assert site.data.loads == 0
    (refused,) = site.told(Refused)
    assert "allow" in refused.reasons[0]


def test_a_task_of_a_run_that_is_refused_meanwhile_is_declined_with_the_policys_reasons(server, site, tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text('[plans]\nallow = "any"\n')
    site.options["policy"] = PolicyFile(file)
    server.runs = [info()]
    with site.agent() as agent:
        agent.step()
        server.tasks = [given := task(server)]
        server.faults["POST /v1/checkin"] = [("after", lambda: file.write_text("[privacy]\nminimum_cohort = 10\n"))]
        agent.step()
    assert server.declined[given.task].reason == "policy" and "minimum_cohort" in server.declined[given.task].message
    assert site.data.loads == 0 and site.settled() == [(given.task, "declined")]
    assert site.ledger()[-1][0] == "decline"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"plan_digest": "0" * 64}, "digest"),
        ({"plan": plan_bytes(REMEMBERING)}, "digest"),
        ({"plan": b"{}"}, ""),
    ],
)
def test_a_plan_that_is_not_what_its_digest_says_is_refused(server, site, changed, said):
    server.runs, server.tasks = [info(**changed)], [task(server)]
    site.steps(2)
    assert server.check_ins[-1].refuses == ("r1",) and site.data.loads == 0
    assert said in site.told(Refused)[0].reasons[0]


def test_a_plan_whose_noise_nobody_can_draw_is_refused_by_the_client_itself(server, site):
    grid, share = shoal.Clip(1.0) >> shoal.Quantize(1e-6), shoal.NoiseShare(1.0, at_least=3)
    chain = grid >> share >> shoal.SecureSum(threshold=3) >> shoal.Over(clients=10)
    plan = shoal.Plan(shoal.FedAvg(models.logistic(4), aggregation=chain), rounds=1)
    server.runs = [info(plan)]
    site.steps(2)
    assert "use a larger step in Quantize" in site.told(Refused)[0].reasons[0]


def test_a_plan_with_code_of_its_own_runs_where_its_study_file_is(server, site):
    model = models.from_functions(
        lambda key: {"w": np.zeros((4, 2), np.float32)}, lambda p, x: x @ p["w"], loss="cross_entropy"
    )
    plan = shoal.Plan(shoal.FedAvg(model), rounds=1)
    server.runs, server.tasks = [info(plan)], [task(server, plan=plan)]
    site.steps(2)
    assert server.results == {} and "--study" in site.told(Refused)[0].reasons[0]
    site.options["plans"] = [plan]
    site.steps(2)
    assert list(server.results) == ["r1-0-0-0"]


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (DataError("column 'age': expected numbers, found 'secret-value'"), "data"),
        ({"x": np.zeros((3, 9), np.float32), "y": np.zeros(3, int)}, "data"),
        (ZeroDivisionError("secret-value"), "error"),
    ],
    ids=["of the source", "of another shape", "a function that raises"],
)
def test_data_that_do_not_fit_are_declined_and_what_is_wrong_with_them_stays_at_the_site(server, site, columns, reason):
    site.data = Data(columns)
    server.runs, server.tasks = [info()], [task(server)]
    given = server.tasks[0]
    site.steps(2)
    assert server.declined[given.task].reason == reason and server.results == {}
    assert "secret" not in server.declined[given.task].message and "'age'" not in server.declined[given.task].message
    assert site.settled() == [(given.task, "declined")]
    if not isinstance(columns, dict):
        assert "secret-value" in site.told(Settled)[0].message


def test_a_result_larger_than_anybody_takes_is_not_sent(server, site):
    server.runs, server.tasks = [info()], [task(server, most_bytes=10)]
    site.steps(2)
    assert server.results == {} and server.declined["r1-0-0-0"].reason == "error"


def test_what_a_client_remembers_is_of_the_task_that_the_server_names(server, site):
    server.runs = [info(REMEMBERING)]
    first = task(server, "r1-0-0-0", plan=REMEMBERING)
    second = task(server, "r1-1-0-0", plan=REMEMBERING, round=1, state_of="r1-0-0-0")
    third = task(server, "r1-2-0-0", plan=REMEMBERING, round=2, state_of="r1-0-0-0")
    last = task(server, "r1-3-0-0", plan=REMEMBERING, round=3, state_of="r1-2-0-0")
    lost = task(server, "r1-4-0-0", plan=REMEMBERING, round=4, state_of="r1-0-0-0")
    for given in (first, second, third, last, lost):
        server.tasks = [given]
        site.steps(2)  # each time another process
    fresh = expected(REMEMBERING, first, state=pack_tree(enter(REMEMBERING.algorithm)))
    after_third = expected(REMEMBERING, third, state=fresh.state)
    assert server.results[first.task][1] == fresh.payload
    assert server.results[second.task][1] == expected(REMEMBERING, second, state=fresh.state).payload
    assert server.results[third.task][1] == after_third.payload
    assert server.results[last.task][1] == expected(REMEMBERING, last, state=after_third.state).payload
    assert "remembers" in server.declined[lost.task].message, "what the server has moved on from is not kept for ever"


def test_the_memory_of_a_task_that_did_not_count_is_gone(server, site):
    server.runs, server.tasks = [info(REMEMBERING)], [task(server, plan=REMEMBERING)]
    server.verdicts["r1-0-0-0"] = Verdict(verdict="late")
    site.steps(2)
    assert site.settled() == [("r1-0-0-0", "late")]
    assert list(Blobs(site.home.folder / "blobs").ids()) == []


POINTS = [
    "client-learned-before", "client-learned-after", "client-taken-before", "client-taken-after",
    "client-begun-before", "client-begun-after",
    "client-trained-before", "client-trained-after", "client-sent-before", "client-sent-after",
    "client-settled-before", "client-settled-after",
]  # fmt: skip


class Killed(BaseException):
    """As SIGKILL: nothing after it happens."""


def killed_at(point):
    def crash(name):
        if name == point:
            raise Killed

    return crash


@pytest.mark.parametrize("point", POINTS)
def test_an_agent_that_is_killed_anywhere_goes_on_to_the_same_result_and_trains_no_more_than_it_must(
    server, site, point
):
    server.runs, server.tasks = [info(REMEMBERING)], [task(server, plan=REMEMBERING, inline=False)]
    given = server.tasks[0]
    with pytest.raises(Killed):
        site.steps(3, point=killed_at(point))
    trained = len(site.told(Trained))
    site.steps(3)
    assert server.results[given.task][1] == expected(REMEMBERING, given).payload
    assert len(site.told(Trained)) - trained == (0 if point in POINTS[7:] else 1)
    again = task(server, "r1-1-0-0", plan=REMEMBERING, round=1, state_of=given.task)
    server.tasks = [again]
    site.steps(2)
    state = expected(REMEMBERING, given).state
    assert server.results[again.task][1] == expected(REMEMBERING, again, state=state).payload
    assert [entry for entry in site.ledger() if entry[:2] == ("result", given.task)]


def test_a_task_at_which_the_process_dies_again_and_again_is_given_back(server, site):
    server.runs, server.tasks = [info()], [task(server)]
    for _ in range(3):
        with pytest.raises(Killed):
            site.steps(2, point=killed_at("client-begun-after"))
    site.steps(2)
    assert server.declined["r1-0-0-0"].reason == "interrupted"


def test_a_task_that_was_cancelled_is_dropped_and_one_with_a_result_is_reported_all_the_same(server, site):
    server.runs = [info()]
    with site.agent() as agent:
        agent.step()
        for name in ("r1-0-0-0", "r1-0-0-1"):
            agent._journal.take(task(server, name))
        agent._journal.trained("r1-0-0-1", result=b"result", coding="", state=None, train_s=1.0)
        agent.step()  # the server knows of neither
    assert dict(site.settled()) == {"r1-0-0-0": "cancelled", "r1-0-0-1": "counted"}
    assert list(server.results) == ["r1-0-0-1"]


def test_a_run_whose_news_were_lost_is_asked_for_again(server, site):
    server.runs, server.tasks = [info()], [task(server)]
    with site.agent() as agent:
        server.faults["POST /v1/checkin"] = [("after", cut)]
        for _ in range(3):
            agent.step()
    assert list(server.results) == ["r1-0-0-0"]


def test_a_task_that_the_server_wants_nothing_of_any_more_is_settled(server, site):
    server.runs, server.tasks = [info()], [task(server)]

    def unknown():
        raise Refusal(404, "task-unknown", "there is no such task")

    server.faults["POST /v1/tasks/.*/report"] = [unknown]
    site.steps(2)
    assert site.settled() == [("r1-0-0-0", "refused")]


def test_an_agent_needs_an_identity_and_a_home_to_itself(server, site, tmp_path):
    with pytest.raises(StoreError, match="not enrolled"):
        Agent(Home(tmp_path / "nobody"), Data(), policy=Policy())
    with site.agent(), pytest.raises(StoreError, match="another agent"):
        site.agent()
    site.agent().close()


# in the loop


def running(site, point=lambda name: None):
    """An agent in a thread."""
    agent = site.agent(point)
    failures = []

    def run():
        try:
            agent.run()
        except ServerError as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return agent, thread, failures


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def test_the_loop_does_task_after_task_while_it_checks_in_and_ends_when_it_is_asked(server, site):
    server.runs, server.tasks = [info()], [task(server, f"r1-{i}-0-0", round=i) for i in range(3)]
    server.faults["POST /v1/checkin"] = [None, cut, None, busy()]
    agent, thread, failures = running(site)
    until(lambda: len(server.results) == 3)
    agent.stop()
    thread.join(20)
    agent.close()
    assert not thread.is_alive() and failures == []
    assert site.told(Away) and isinstance(site.events[-1], Stopped)


def test_an_agent_whose_work_ends_during_a_check_in_asks_for_more_at_once(server, site):
    server.runs, server.tasks, server.busy_wait_s = [info()], [task(server)], 3600.0
    asked = threading.Event()
    agent, thread, _ = running(site, lambda name: name == "client-begun-after" and asked.wait(30))

    def answered_late():
        if agent.working:
            asked.set()
            until(lambda: not agent.working)

    server.faults["POST /v1/checkin"] = [answered_late] * 100
    try:
        until(lambda: "r1-0-0-0" in server.results)
        server.tasks.append(task(server, "r1-1-0-0", round=1))
        until(lambda: "r1-1-0-0" in server.results)
    finally:
        agent.stop()
        thread.join(20)
        agent.close()


def test_an_agent_that_is_superseded_ends_with_the_reason(server, site):
    server.runs = [info()]
    agent, thread, failures = running(site)
    until(lambda: server.check_ins)
    server.superseded.update(server.newest.values())
    thread.join(20)
    agent.close()
    assert not thread.is_alive() and isinstance(failures[0], SupersededError)


def test_a_stop_in_the_middle_of_work_gives_the_task_back_within_seconds(server, site):
    site.options["grace_s"] = 0.2
    began, go = threading.Event(), threading.Event()

    def slow(name):
        if name == "client-begun-after":
            began.set()
            go.wait(30)

    server.runs, server.tasks = [info()], [task(server)]
    agent, thread, _ = running(site, slow)
    assert began.wait(20)
    until(lambda: server.check_ins[-1].busy)
    agent.stop()
    thread.join(20)
    assert not thread.is_alive()
    assert server.declined["r1-0-0-0"].reason == "interrupted"
    go.set()
    until(lambda: agent._working is None)
    agent.close()


PROCESS = """
    import sys
    import numpy as np
    from shoal.client.agent import Agent, end_process
    from shoal.client.identity import Home
    from shoal.client.policy import Policy, PolicyFile

    class Data:
        def load(self, plan):
            return {"x": np.ones((6, 4), np.float32), "y": np.array([0, 1] * 3)}

    policy = Policy(allow="any")
    with Agent(Home(sys.argv[1]), Data(), policy=policy, grace_s=0.5, tell=lambda e: print(e, flush=True)) as agent:
        agent.run()
        if agent.working:
            end_process(0)
"""


def test_sigterm_ends_a_process_whose_check_in_is_held_with_exit_status_0(server, site):
    server.runs, server.tasks = [info()], [task(server)]
    held, over = threading.Event(), threading.Event()

    def hold():
        if "r1-0-0-0" in server.results:
            held.set()
            over.wait(300)

    server.faults["POST /v1/checkin"] = [hold] * 100
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROCESS), str(site.home.folder)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert held.wait(60)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=100)  # which no answer to the check-in ends
    finally:
        over.set()
        process.kill()
    assert process.returncode == 0, out
    assert "counted" in out and out.rstrip().endswith("stopped: as it was asked")


def test_sigterm_in_the_middle_of_compiled_work_gives_the_task_back_and_ends_with_exit_status_0(server, site):
    endless = shoal.Plan(shoal.FedAvg(models.mlp(4, hidden=(200, 200)), epochs=10**6, batch_size=4), rounds=1)
    server.runs, server.tasks = [info(endless)], [task(server, plan=endless)]
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), str(site.home.folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    until(lambda: server.check_ins and server.check_ins[-1].busy, 60)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0, out
    assert server.declined["r1-0-0-0"].reason == "interrupted" and out.rstrip().endswith("stopped: as it was asked")


def test_a_process_killed_in_the_middle_of_its_work_is_followed_by_one_that_does_it(server, site):
    server.runs, server.tasks = [info()], [task(server)]
    command = [sys.executable, "-c", textwrap.dedent(PROCESS), str(site.home.folder)]
    environment = os.environ | {"SHOAL_CRASH_AT": "client-trained-before"}
    killed = subprocess.run(command, check=False, env=environment, capture_output=True, timeout=60)
    assert killed.returncode == -signal.SIGKILL and server.results == {}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    until(lambda: "r1-0-0-0" in server.results, 60)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_journal_of_a_newer_shoal_is_not_touched(tmp_path):
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreError, match="newer") as caught:
        Journal(tmp_path / "journal.db", Blobs(tmp_path / "blobs"))
    assert caught.tb and not held_open(tmp_path)


def test_an_agent_that_cannot_open_its_journal_lets_go_of_its_home(site):
    with contextlib.closing(sqlite3.connect(site.home.folder / "journal.db")) as connection:
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreError, match="newer") as caught:
        Agent(site.home, Data(), policy=Policy(allow="any"))
    assert caught.tb and not held_open(site.home.folder)
    with site.home.held():
        pass
