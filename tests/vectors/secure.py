"""The published vectors of a secure sum.

python -m tests.vectors.secure             prints them
python -m tests.vectors.secure --write     writes them to secure.json beside this file
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from shoal.secure.parameters import Shape

from ..secure.session import STAGES, clients
from . import failures
from .record import Case, draws, failed, people, whole

PATH = Path(__file__).with_name("secure.json")
ABOUT = [
    "Vectors of Shoal's secure sum, told in docs/secure.md. Bytes are in hexadecimal.",
    "identities: each client's private Ed25519 key.",
    "draws: by the digest of a session's terms, each client's 32 bytes of entropy and its contribution, written "
    "as a body without masks.",
    "sessions: everybody keeps to the protocol, and clients may go: gone names the first stage without a message. Of a "
    "message to a client, client is whom it is for.",
    "failures: a session of the same clients in which the messages under changed come in the place of the right ones, "
    "and those under besides are given to the server in addition, in the stage named. errors are all sentences, who "
    "says them, and the culprit that is named.",
]


def sessions() -> list[Case]:
    """Sessions in which everybody keeps to the protocol."""
    ring = clients(6, threshold=3, shape=Shape(4, 3))
    return [
        Case("three clients, 32 bits", clients(3)),
        Case("three clients, 16 bits, and bytes of a mask that are not used", clients(3, bits=16, size=7, slots=1)),
        Case("three clients, 64 bits, and no slots", clients(3, bits=64, size=3, slots=0)),
        Case("four clients", clients(4)),
        *(Case(f"four clients, one is gone from the stage {stage!r}", clients(4), {"c": stage}) for stage in STAGES),
        Case(
            "five clients, one is gone from each of two stages", clients(5, threshold=3), {"a": "mask", "e": "confirm"}
        ),
        Case("six clients on a ring, each with four neighbours", ring),
        Case("six clients on a ring, one is gone from the stage 'mask'", ring, {"b": "mask"}),
    ]


def document() -> dict[str, Any]:
    """All vectors."""
    done, wrong = sessions(), failures.cases()
    groups = [case.group for case in (*done, *wrong)]
    return {
        "about": ABOUT,
        "identities": people(groups),
        "draws": {group.terms.digest.hex(): draws(group) for group in groups},
        "sessions": [whole(case) for case in done],
        "failures": [failed(case) for case in wrong],
    }


def text() -> str:
    """All vectors as they are written: the same bytes on every machine."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PATH.write_text(text(), "utf-8")
    else:
        print(text(), end="")
