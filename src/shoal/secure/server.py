"""The server of a secure sum: a state machine that is given messages and says what to send.

It knows no time and no socket. Who runs it hands over what comes, and calls `advance` once all have come or the time
of a stage is over. It keeps sums, not contributions: its memory does not grow with clients times the length of vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import numpy as np

from shoal.errors import SecureSumError, SettingError
from shoal.secure import ring
from shoal.secure.parameters import Shape
from shoal.secure.stages import Advertising, Answering, Body, Confirming, Masking, Session, Sharing, Stage, Sum
from shoal.secure.terms import CLIENTS, Terms

NAMES: Mapping[type, str] = {
    Advertising: "advertise",
    Sharing: "share",
    Masking: "mask",
    Confirming: "confirm",
    Answering: "answer",
    Sum: "done",
    SecureSumError: "aborted",
}
"""What a session is in, or has ended with."""


class ServerSession:
    """The server's side of one secure sum.

    `roster` has the Ed25519 public key, 32 bytes, of every invited client. `shape` overrides the rule of
    `parameters.shape`, if all clients are given it too. A message that is wrong, late, unknown or a second one is
    refused by a SecureSumError whose culprit is the client that it came from, and the session goes on as if it had not
    come. A byte-equal repeat of a message that was taken does nothing.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        invited: Collection[str],
        roster: Mapping[str, bytes],
        shape: Shape | None = None,
        threads: int = 1,
    ) -> None:
        unknown = sorted(set(invited) - set(roster))
        if unknown:
            raise SettingError(f"no public key is known of {unknown[0]!r}, who is invited: enrol it, or leave it out")
        if not terms.threshold <= len(set(invited)) <= CLIENTS:
            raise SettingError(
                f"a secure sum with a threshold of {terms.threshold} is for {terms.threshold} to {CLIENTS} clients, "
                f"and {len(set(invited))} are invited"
            )
        value, slots = np.zeros(terms.size, ring.dtype(terms.bits)), np.zeros(terms.slots, ring.dtype(64))
        session = Session(terms, {name: roster[name] for name in invited}, shape, threads, value, slots)
        self._expected = frozenset(invited)
        self._now: Stage | Sum | SecureSumError = Advertising(session, self._expected)
        self._taken: set[tuple[str, bytes]] = set()

    @property
    def stage(self) -> str:
        """Whose messages are taken: "advertise", "share", "mask", "confirm", "answer"; then "done" or "aborted"."""
        return NAMES[type(self._now)]

    @property
    def missing(self) -> frozenset[str]:
        """Whose message of this stage has not come."""
        if isinstance(self._now, Sum | SecureSumError):
            return frozenset()
        return self._expected - self._now.came.keys()

    def receive(self, client: str, message: bytes, *, body: Body | None = None, digest: bytes | None = None) -> None:
        """Takes a client's message of this stage.

        The body of a contribution is added to the sums at once. `digest` is its SHA-256, if it is known already.
        """
        mark = (client, hashlib.sha256(message).digest())
        if mark in self._taken:
            return
        try:
            stage = self._open(client)
            if client in stage.came:
                raise SecureSumError("it has sent another message in this stage, and the first one counts")
            stage.take(client, message, body, digest)
        except SecureSumError as error:
            raise SecureSumError(f"a message of {client!r} is refused: {error}", culprit=client) from None
        self._taken.add(mark)

    def advance(self) -> None:
        """Closes the stage: who has not come is out. SecureSumError, and never a result, if too few have come."""
        if isinstance(self._now, Sum | SecureSumError):
            raise SecureSumError(f"the session is {self.stage}: there is no stage to close")
        closing, self._now = self._now, SecureSumError("a stage could not be closed")  # never closed twice
        try:
            self._now = closing.close()
        except SecureSumError as error:
            self._now = SecureSumError(str(error), culprit=error.culprit)  # without the frames that know secrets
            raise
        if not isinstance(self._now, Sum):
            self._expected = self._now.expected

    def message_for(self, client: str) -> bytes:
        """What a client is sent after the stage it has ended; SecureSumError if it is out."""
        return self._open(client).message_for(client)

    def result(self) -> Sum:
        """The sum; SecureSumError while there is none, and if there will be none."""
        if isinstance(self._now, Sum):
            return self._now
        why = f"the session was stopped: {self._now}" if isinstance(self._now, SecureSumError) else "it is not done"
        raise SecureSumError(f"there is no sum: {why}")

    def _open(self, client: str) -> Stage:
        """The stage, if there is one and the client is in it."""
        if isinstance(self._now, SecureSumError):
            raise SecureSumError(f"the session was stopped: {self._now}")
        if isinstance(self._now, Sum):
            raise SecureSumError("the session is over")
        if client not in self._expected:
            raise SecureSumError(f"{client!r} is not in this stage: it is unknown, or was late in one before")
        return self._now
