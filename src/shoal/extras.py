"""Optional packages: imported where they are used, and missing ones told by the extra that brings them."""

from __future__ import annotations

import importlib
from typing import Any

from shoal.errors import MissingExtraError


def needed(module: str, extra: str) -> Any:
    """A module of an optional package; MissingExtraError, with what to install, if it is not there.

    >>> needed("math", "none").sqrt(4.0)
    2.0
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(module.partition(".")[0], extra) from error
