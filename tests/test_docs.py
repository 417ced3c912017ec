"""The docs name every public name, lead nowhere that is not there, and show what commands print."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import shoal
from shoal import algorithms, analytics, errors, learning, matrices, models, partition, privacy, schedules

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOAL = str(Path(sys.executable).parent / "shoal")


def page(name):
    return (ROOT / name).read_text("utf-8")


def own_names(module):
    """The public names that a module, or the modules of its package, defines."""
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and str(getattr(thing, "__module__", "")).startswith(module.__name__)
    ]


@pytest.mark.parametrize(
    ("module", "prefix"),
    [(shoal, ""), (models, "models."), (analytics, "analytics."), (learning, "learning."), (schedules, "schedules."),
     (partition, "partition."), (privacy, "privacy."), (matrices, "matrices.")],
    ids=["shoal", "models", "analytics", "learning", "schedules", "partition", "privacy", "matrices"],
)  # fmt: skip
def test_the_reference_lists_every_public_name(module, prefix):
    reference = "".join(map(page, ("docs/reference.md", "docs/reference-data.md", "docs/reference-models.md")))
    names = getattr(module, "__all__", None) or own_names(module)
    assert len(names) > 1
    missing = [name for name in names if not re.search(rf"`{re.escape(prefix + name)}\b", reference)]
    assert not missing


def test_the_reference_lists_what_writers_of_algorithms_need():
    table = page("docs/reference.md").partition("### For writers of algorithms")[2]
    for name in ("Algorithm", "Local", "Run", "Call", "ClientState", "Report", "start", "enter", "open_round",
                 "client_turn", "close_round", "run_round"):  # fmt: skip
        assert hasattr(algorithms, name)
        assert f"`{name}" in table


def test_the_tree_of_errors_is_that_of_the_code():
    tree = [line.strip() for line in errors.__doc__.splitlines() if "──" in line]
    assert len(tree) > 8
    for line in tree:
        assert line in page("docs/errors.md")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_relative_link_leads_to_a_file(path):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8"))
    for target in targets:
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_short_and_its_headings_shallow(path):
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 260
    assert not [line for line in lines if line.startswith("####")]


def test_every_page_is_in_the_readmes_map():
    readme = page("README.md")
    for path in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{path.name})" in readme


def test_the_changelog_has_the_packages_version():
    version = tomllib.loads(page("pyproject.toml"))["project"]["version"]
    assert f"## [{version}]" in page("CHANGELOG.md")


def test_the_notice_has_the_digest_of_the_bundled_data():
    data = (ROOT / "src/shoal/data/heart_disease_uci.csv").read_bytes()
    assert hashlib.sha256(data).hexdigest() in page("NOTICE")


def test_the_command_lines_page_shows_the_example_study():
    study = page("examples/hospitals_study.py")
    (shown,) = re.findall(r"```python\n(.*?)```", page("docs/command-line.md"), re.DOTALL)
    assert shown in study


@pytest.mark.parametrize(("command", "columns"), [("plan", None), ("simulate", 5)])
def test_the_command_lines_page_shows_what_is_printed(command, columns, tmp_path):
    said = subprocess.run(
        [SHOAL, command, str(ROOT / "examples/hospitals_study.py")],
        cwd=tmp_path, env={**os.environ, "XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "120"},
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    shown = re.search(rf"\$ shoal {command} hospitals_study.py\n(.*?)```", page("docs/command-line.md"), re.DOTALL)
    assert comparable(shown[1]) == comparable(said)


def comparable(text):
    """Words by line, without the plan's digest and without seconds, which differ."""
    text = re.sub(r"^plan .*$", "plan", text, flags=re.MULTILINE)
    lines = [line.split() for line in text.strip().splitlines()]
    if "seconds" in lines[0]:
        place = lines[0].index("seconds")
        lines = [line[:place] + line[place + 1 :] for line in lines]
    return lines
