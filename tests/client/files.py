"""What this process has open."""

from __future__ import annotations

import os
from pathlib import Path


def held_open(folder: Path) -> list[str]:
    """The files in a folder that are open, on systems that tell."""
    files = Path("/proc/self/fd")
    found = [os.readlink(file) for file in files.iterdir() if file.is_symlink()] if files.is_dir() else []
    return [file for file in found if file.startswith(f"{folder}{os.sep}")]
