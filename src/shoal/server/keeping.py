"""A run's model on the server: in memory, and as the blobs that the run goes on from."""

from __future__ import annotations

from shoal.server import closing
from shoal.server.records import Stored
from shoal.server.services import Services
from shoal.wire.blobs import blob_id
from shoal.wire.messages import INLINE_BYTES, Manifest


class Kept:
    """The model after the last closed round; `inline` is what clients are sent, if it is small enough for a message."""

    def __init__(self, services: Services, model: closing.Model, stored: Stored) -> None:
        self._services = services
        self.model, self.stored, self.inline = model, stored, _inline(model, stored)
        self._making: tuple[Manifest, ...] = ()

    def needs(self) -> tuple[Manifest, ...]:
        """Its blobs, and those of the model that is being made."""
        return (*self.stored, *self._making)

    async def keep(self, model: closing.Model) -> Stored:
        """A model's blobs, when they are on the disk. They are needed from before they are there."""
        made = self._making = await self._services.thread(closing.manifests, model)
        await self._services.move(closing.keep, model, self._services.blobs)
        return made

    def go_on(self, model: closing.Model, made: Stored) -> Stored:
        """Takes the next model's place; the blobs of the one before."""
        over = self.stored
        self.model, self.stored, self.inline, self._making = model, made, _inline(model, made), ()
        return over

    async def restore(self, stored: Stored, algorithm: closing.Work, *, seed: int) -> tuple[Manifest, ...]:
        """Takes up what is durable; the blobs that may be over with it."""
        model, over = self.model, self.needs()
        if stored != self.stored:  # a write that seemed to fail did not
            blobs, state = self._services.blobs, stored[0]
            data = await self._services.move(blobs.read, blob_id(state), offset=0, length=state.size_bytes)
            model = await self._services.thread(closing.model_of, algorithm, seed, data)
        self.go_on(model, stored)
        return over


def _inline(model: closing.Model, stored: Stored) -> bytes | None:
    return model.call() if stored[1].size_bytes <= INLINE_BYTES else None
