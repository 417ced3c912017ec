"""The keyboard's study for people and for programs: a table, plain data, and suggestions to try."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from shoal.data.texts import START, unfinished
from shoal.demos.keyboard import Study
from shoal.demos.keyboard_lstm import suggest

NOTE = (
    "top 1, top 3: how often the next word is the first suggestion, or one of three, on the last fifth of what each "
    "role says; a word outside the vocabulary counts as missed. leaves a role: what it sends in all."
)


def table(study: Study) -> Table:
    """A row for each way to guess the next word, as in Hard et al. 2018, table 3."""
    train, test, words = study.data.train, study.data.test, len(study.data.vocabulary.words)
    title = (
        f"Next word of {len(train):,} roles: {sum(train.sizes.values()):,} words to learn from, "
        f"{sum(test.sizes.values()):,} to test, a vocabulary of {words:,}"
    )
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("guessed by", no_wrap=True)
    for name in ("top 1", "top 3", "leaves a role"):
        table.add_column(name, justify="right")
    for line in study.lines:
        table.add_row(line.way, *(f"{found:.3f}" for found in line.recall), line.leaves)
    return table


def equality(study: Study) -> str:
    """What was found to be equal."""
    words, pairs, threes = study.equal
    return (
        f"{words:,} single words, {pairs:,} bigrams, {threes:,} trigrams: every federated count equals the pooled one."
    )


def data(study: Study) -> dict[str, Any]:
    """The table as plain data."""
    return {
        "demo": "keyboard",
        "roles": len(study.data.train),
        "words": {"train": sum(study.data.train.sizes.values()), "test": sum(study.data.test.sizes.values())},
        "vocabulary": len(study.data.vocabulary.words),
        "counts equal to pooled": list(study.equal),
        "rounds": study.rounds,
        "rows": [
            {"guessed by": line.way, "top 1": line.recall[0], "top 3": line.recall[1], "leaves a role": line.leaves}
            for line in study.lines
        ],
    }


def suggestions(study: Study, text: str) -> dict[str, list[str]]:
    """The next words after a text's last sentence, by each model there is."""
    vocabulary = study.data.vocabulary
    words = vocabulary.numbers(unfinished(text))
    context = [START, START, *words][-2:]
    found = {"trigrams": study.counted.suggest([context])[0].tolist()}
    if study.network is not None:
        found["LSTM"] = suggest(*study.network, words)
    return {way: [vocabulary.word(place) for place in places if place >= 0] for way, places in found.items()}
