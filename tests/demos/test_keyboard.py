"""The keyboard demo on a small made-up play."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

import shoal
from shoal import PlainSum, Total
from shoal.cli import demo
from shoal.demos import keyboard_private, keyboard_private_report, keyboard_report
from shoal.demos.keyboard import Data, check_equal, count, study
from shoal.demos.keyboard_lstm import SHORT, recalls, start, suggest
from shoal.demos.keyboard_private import Split, counting

WAYS = [
    "most frequent words", "bigrams, each role its own", "bigrams, federated", "trigrams, federated",
    "trigrams of two roles or more", "LSTM, FedAvg",
]  # fmt: skip
SENTENCES = ["the king is dead.", "long live the king!", "my lord, the king is here?", "who is there;", "come to me."]


def play(roles=4, speeches=30, seed=0):
    random = np.random.default_rng(seed)
    lines = ["# A Made-up Play", ""]
    for _ in range(speeches):
        for role in range(roles):
            said = " ".join(random.choice(SENTENCES, 3))
            lines += [f"**ROLE {role}**  ", said, ""]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def plays(tmp_path_factory):
    root = tmp_path_factory.mktemp("text")
    folder = root / "plays" / "tragedies"
    folder.mkdir(parents=True)
    (folder / "made-up.md").write_text(play(), "utf-8")
    return root


@pytest.fixture(scope="module")
def data(plays):
    return Data.of(shoal.shakespeare(plays), words=14)


@pytest.fixture(scope="module")
def found(data):
    told = []
    done = study(data, replace(SHORT, rounds=40, cohort=4, length=8), tell=told.append)
    assert told.count("round") == 40
    return done


def invoke(*arguments):
    return CliRunner().invoke(demo.app, ["keyboard", *map(str, arguments)])


def test_every_way_to_guess_has_its_two_recalls(found):
    assert [line.way for line in found.lines] == WAYS
    assert all(0 <= line.recall[0] <= line.recall[1] <= 1 for line in found.lines)
    assert found.equal == found.counted.table.ngrams


def test_longer_runs_guess_better_on_sentences_that_come_again(found):
    by_way = {line.way: line.recall[0] for line in found.lines}
    assert by_way["most frequent words"] < by_way["bigrams, federated"] < by_way["trigrams, federated"]


def test_recall_is_what_plain_loops_find(data, found):
    rows = data.test.contexts(data.vocabulary)
    hits = 0
    for context, word in zip(rows.columns["x"].tolist(), rows.columns["y"].tolist(), strict=True):
        hits += word in found.counted.suggest([context], order=3)[0].tolist()
    assert found.lines[4].recall[1] == pytest.approx(hits / len(rows.columns["y"]))


def test_counts_that_are_not_the_pooled_ones_are_noticed(data):
    learned = data.train.contexts(data.vocabulary)
    model = count(learned, vocabulary=len(data.vocabulary), least_clients=1)
    check_equal(model, learned)
    with pytest.raises(AssertionError):
        check_equal(replace(model, counts=(model.counts[0] + 1, *model.counts[1:])), learned)


def test_the_networks_recall_is_what_its_scores_say(data, found):
    model, vector = found.network
    rows = data.test.rows(data.vocabulary, length=8)
    x, y = rows.columns["x"], rows.columns["y"]
    scores = np.array(model.outputs(vector, x))
    scores[..., :2] = -np.inf
    best = np.argsort(-scores, axis=-1)[..., :3]
    three = (best == y[..., None]).any(-1)[y > 0]
    first, found_three = recalls(model, vector, rows)
    assert found_three == pytest.approx(three.mean())
    assert first == pytest.approx((best[..., 0] == y)[y > 0].mean())


def test_the_network_begins_with_the_frequencies_of_the_words(data):
    learned = data.train.contexts(data.vocabulary)
    counts = count(learned, vocabulary=len(data.vocabulary), least_clients=1).counts[0]
    model = shoal.models.word_lstm(len(data.vocabulary))
    bias = model.layout.unflatten(start(model, counts))["output.bias"]
    np.testing.assert_allclose(np.exp(bias), (counts + 1) / (counts + 1).sum(), rtol=1e-6)


def test_the_network_learns(data, found):
    model, vector = found.network
    words = data.vocabulary.numbers(("long", "live", "the"))
    assert data.vocabulary.word(suggest(model, vector, words, top=1)[0]) == "king"


def test_suggestions_follow_the_sentence_that_has_begun(found):
    tried = keyboard_report.suggestions(found, "Who is there? Long live the")
    assert list(tried) == ["trigrams", "LSTM"]
    assert tried["trigrams"][0] == "king"
    assert tried == keyboard_report.suggestions(found, "long live the")
    assert len(keyboard_report.suggestions(found, "")["LSTM"]) == 3


def test_the_command_prints_one_object(plays):
    done = invoke("--data", plays, "--words", 14, "--rounds", 0, "--json", "--prompt", "long live the")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert [row["guessed by"] for row in printed["rows"]] == WAYS[:-1]
    assert printed["roles"] == 4
    assert printed["next"]["trigrams"][0] == "king"


def test_the_command_prints_a_table_and_does_not_wait_where_nobody_types(plays):
    done = invoke("--data", plays, "--words", 14, "--rounds", 0)
    assert done.exit_code == 0, done.output
    assert "every federated count equals the pooled one" in " ".join(done.stdout.split())
    assert "type some words" not in done.stdout


def test_fewer_rounds_than_none_are_refused(plays):
    done = invoke("--data", plays, "--rounds", -1)
    assert "0 or more rounds" in str(done.exception)


@pytest.mark.parametrize("ending", ["end of input", "an empty line", "Ctrl-C"])
def test_at_a_terminal_one_can_try_it_and_leave(plays, ending):
    ours, theirs = pty.openpty()
    code = "from shoal.cli.app import main; main()"
    command = [sys.executable, "-c", code, "demo", "keyboard", "--rounds", "0", "--words", "14", "--data", str(plays)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        shown = _read(ours, b"", b"\n> ")
        os.write(ours, b"long live the\n")
        shown = _read(ours, shown, b"\n> ", times=2)
        while process.poll() is None:  # what is typed while a terminal is being set up is dropped: type it again
            if ending == "Ctrl-C":
                process.send_signal(signal.SIGINT)
            else:
                os.write(ours, b"\x04" if ending == "end of input" else b"\n")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
        assert process.returncode == 0
    os.close(ours)
    assert b"type some words" in shown and b"trigrams: king" in shown


def _read(terminal, shown, until, times=1):
    """What a terminal shows, on from `shown`, once it holds a text so many times."""
    while shown.count(until) < times:
        shown += os.read(terminal, 1024)
    return shown


@pytest.fixture(scope="module")
def split(plays):
    return Split.of(shoal.shakespeare(plays), words=14)


def test_private_roles_have_no_say_in_what_is_counted(split):
    assert not set(split.public.clients) & set(split.private.clients)
    assert set(split.test.clients) <= set(split.private.clients)
    assert split.vocabulary == split.public.vocabulary(14, least_clients=1)


def test_a_role_moves_the_noised_counts_by_at_most_the_norm_that_the_noise_is_for():
    table = shoal.analytics.NgramTable(5, ([0, 1, 2, 3, 4], [7, 9], [40]))
    plan = counting(table, epsilon=2.0, delta=1e-6, threshold=2)
    layout, chain = plan.algorithm.layout, plan.algorithm.aggregation
    assert chain.sensitivity(layout) == pytest.approx(keyboard_private.NORM, rel=1e-3)
    endless = {"3": (np.full((9000, 2), 2, np.int32), np.full(9000, 2, np.int32))}
    quiet = replace(plan, algorithm=replace(plan.algorithm, aggregation=chain.steps[0] >> PlainSum() >> Total()))
    (said, *others) = shoal.simulate(quiet, shoal.Population.from_clients(endless), progress="off").state.counts
    assert np.linalg.norm(np.concatenate([said, *others])) <= keyboard_private.NORM


def test_counting_and_training_together_stay_within_epsilon(split):
    told = []
    found = keyboard_private.study(split, 4.0, 2, tell=told.append)
    assert told.count("round") == 4
    assert list(found.spent) == ["counting", "training", "together"]
    assert found.spent["counting"].epsilon + found.spent["training"].epsilon <= 4
    assert found.spent["counting"].delta + found.spent["training"].delta == keyboard_private.DELTA
    assert found.spent["together"].epsilon <= 4
    assert len(found.lines) == 7 and found.roles == (1, 3)
    assert "simulated" in keyboard_private_report.NOTE


def test_the_command_prints_what_counting_spent(plays):
    done = invoke("--data", plays, "--words", 14, "--rounds", 0, "--epsilon", 4, "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed["noise"] == "simulated"
    assert 3.8 < printed["spent"]["counting"]["epsilon"] <= 4
    table = invoke("--data", plays, "--words", 14, "--rounds", 0, "--epsilon", 4)
    assert "at delta 1e-06" in table.stdout and "simulated noise" in table.stdout


def test_a_prompt_to_models_with_noise_is_refused(plays):
    assert "leave out --epsilon" in str(invoke("--data", plays, "--epsilon", 4, "--prompt", "to be").exception)
