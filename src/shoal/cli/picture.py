"""Where a picture is saved: looked at before the work, not after it."""

from __future__ import annotations

from pathlib import Path

from shoal.errors import SettingError

FORMATS = (".png", ".svg", ".pdf", ".jpg")


def check_picture(path: Path) -> None:
    """SettingError if no picture could be saved at the path."""
    if path.suffix.lower() not in FORMATS:
        raise SettingError(f"a picture is saved as {', '.join(FORMATS)}, and {path} is none of them")
    if not path.parent.is_dir():
        raise SettingError(f"there is no folder {path.parent} to save a picture in")
