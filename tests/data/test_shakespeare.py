"""The plays' Markdown, on a made-up play."""

import pytest

import shoal
from shoal.errors import DataError, PackageError

PLAY = """# A Made-up Play

## ACT I

### SCENE I. A platform.

_Enter BERNARDO and two
others_

**BERNARDO**  
Who's there? _Knocks_ Speak,  
friend!

_Exit_

And be brief.

**FRANCISCO & MARCELLUS**  
__\\[Within]_  
Nay, answer me.

### SCENE II. Elsewhere.

Nobody says this.

**BERNARDO**  
Bernardo.
"""  # noqa: W291


@pytest.fixture
def plays(tmp_path):
    folder = tmp_path / "plays" / "tragedies"
    folder.mkdir(parents=True)
    (folder / "made-up.md").write_text(PLAY, "utf-8")
    return tmp_path


def test_speeches_go_to_their_roles_in_the_order_of_the_play_without_directions(plays):
    assert shoal.shakespeare(plays).clients == {
        "made-up: BERNARDO": (("who's", "there"), ("speak", "friend"), ("and", "be", "brief"), ("bernardo",)),
        "made-up: FRANCISCO & MARCELLUS": (("nay", "answer", "me"),),
    }


def test_a_name_in_two_plays_is_two_roles(plays):
    (plays / "plays" / "tragedies" / "other.md").write_text("**BERNARDO**\nHo!\n", "utf-8")
    assert list(shoal.shakespeare(plays).clients)[-1] == "other: BERNARDO"


def test_files_in_which_nobody_speaks_are_refused(plays):
    (plays / "plays" / "tragedies" / "made-up.md").write_text("# Nothing\n", "utf-8")
    with pytest.raises(DataError, match="nobody speaks"):
        shoal.shakespeare(plays)


def test_files_that_are_no_text_are_refused(plays):
    (plays / "plays" / "tragedies" / "made-up.md").write_bytes(b"**A**\n\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        shoal.shakespeare(plays)


def test_a_folder_without_plays_is_refused(tmp_path):
    with pytest.raises(PackageError, match="holds no file"):
        shoal.shakespeare(tmp_path)
