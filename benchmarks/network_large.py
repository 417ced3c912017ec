"""A model of 2 GB on its way to a client and back, on disk on both sides.

`python -m benchmarks.network_large FOLDER SETTINGS` is the server: Shoal's web application, blobs, check of a result
and sum, with one task of one client that the benchmark gives out. With `"url"` in the settings it is that client: the
agent's own connection and transfers. Training, and the step from a sum to the next model, are not part of it: both
hold models in memory.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.network_fleet import NAME, client_id, key_of
from benchmarks.network_memory import peak_mb
from benchmarks.network_server import LIMITS, plan_of
from shoal.client.connection import Connection
from shoal.client.identity import Identity
from shoal.client.line import Line
from shoal.client.transfers import download, report
from shoal.server.app import App
from shoal.server.certificates import development_certificates
from shoal.server.coordination import Coordination, Known
from shoal.server.folding import Total
from shoal.server.operators import Operators
from shoal.server.serving import Place, serve
from shoal.server.sums import check, chunks
from shoal.store.blobs import Blobs
from shoal.store.incoming import Incoming
from shoal.store.store import open_store
from shoal.wire.blobs import blob_id
from shoal.wire.header import header_of
from shoal.wire.messages import CheckIn, Manifest, Missing, Orders, Result, Task, Upload, Verdict
from shoal.wire.payloads import payload_schema
from shoal.wire.signing import public_key_of

SITE = client_id(0)
TASK = "large-0-0-0"
_PIECE = 1 << 20


class OneTask:
    """What Shoal's application asks of a coordinator, for one client with one task."""

    federation, boot = NAME, "boot0001"

    def __init__(self, folder: Path, numbers: int) -> None:
        self.store, self.blobs = open_store("memory:"), Blobs(folder / "blobs")
        self._algorithm = plan_of(numbers, 1).algorithm
        self._schema = payload_schema(self._algorithm)
        self._model = written(self.blobs, numbers)
        self._total = Total(self._schema, str(folder))
        self._offered: Incoming | None = None

    def known(self, client: str) -> Known | None:
        return Known(client, client) if client == SITE else None

    def public_key(self, client: str) -> bytes | None:
        return public_key_of(key_of(client))

    async def check_in(self, client: Known, message: CheckIn, *, told: set[str]) -> Orders:
        task = Task(
            task=TASK, run="large", plan_digest="0" * 64, round=0, key=(0, 0), model=self._model, seconds_left=3600.0,
            most_bytes=self._schema.most_bytes,
        )  # fmt: skip
        return Orders(wait_s=0.0, tasks=(task,))

    async def offer(self, client: Known, task: str, message: Upload) -> Missing:
        self._offered = self.blobs.incoming(task, message.manifest)
        return Missing(parts=self._offered.missing())

    def incoming(self, client: Known, task: str) -> Incoming:
        assert self._offered is not None
        return self._offered

    async def part_done(self, client: Known, task: str, n: int) -> None:
        pass

    async def report(self, client: Known, task: str, message: Result) -> Verdict:
        return await asyncio.to_thread(self._counted, message.manifest)

    def _counted(self, manifest: Manifest) -> Verdict:
        assert self._offered is not None
        self._offered.commit()
        check(self._algorithm, self._schema, self.blobs, manifest)
        self._total.add(chunks(self.blobs, manifest))
        return Verdict(verdict="counted")

    def may_read(self, client: Known, blob: str) -> bool:
        return blob == blob_id(self._model)

    def gone(self, client: Known) -> None:
        pass

    def drain(self) -> None:
        pass

    async def stop(self) -> None:
        self.store.close()


def written(blobs: Blobs, numbers: int) -> Manifest:
    """A contribution's container of so many numbers, as a blob that is never in memory."""
    schema = payload_schema(plan_of(numbers, 1).algorithm)
    piece = np.random.default_rng(0).normal(size=_PIECE // 4).astype(np.float32).tobytes()
    with blobs.scratch() as path:
        with path.open("wb") as file:
            header = header_of(schema.entries)
            file.write(len(header).to_bytes(8, "little") + header)
            for begin in range(0, 4 * numbers, _PIECE):
                file.write(piece[: 4 * numbers - begin])
            file.write(np.float32(1).tobytes() + np.int32(1).tobytes())
        return blobs.take_file(path)


def serve_one(folder: Path, settings: dict[str, Any]) -> None:
    """Serves until it is told to end."""
    tls = development_certificates(folder / "certificates", ("localhost", "127.0.0.1"))
    here = OneTask(folder, settings["numbers"])

    def ready(url: str) -> None:
        url = url.replace("127.0.0.1", "localhost")
        print(json.dumps({"url": url, "authority": str(tls.authority), "resident_mb": peak_mb()}), flush=True)

    app = App(cast("Coordination", here), operators=Operators.of(folder), limits=LIMITS)
    serve(app, Place(port=0, tls=tls), start=partial(asyncio.sleep, 0), ready=ready)


def bring(folder: Path, settings: dict[str, Any]) -> None:
    """Downloads the model, uploads a result of the same size, and says how long each took."""
    authority = Path(settings["authority"]).read_text()
    identity = Identity(settings["url"], NAME, SITE, SITE, authority)
    connection = Connection(Line(settings["url"], authority=authority), identity, private_key=key_of(SITE))
    blobs = Blobs(folder / "blobs")
    (task,) = connection.check_in(CheckIn()).tasks
    began = time.perf_counter()
    download(connection, blobs, task.model, most_bytes=task.most_bytes)
    down_s = time.perf_counter() - began
    manifest = written(blobs, settings["numbers"])
    began = time.perf_counter()
    verdict = report(connection, blobs, task.task, manifest=manifest, train_s=0.0)
    up_s = time.perf_counter() - began
    print(json.dumps({"down_s": down_s, "up_s": up_s, "verdict": verdict.verdict, "resident_mb": peak_mb()}))


if __name__ == "__main__":
    settings = json.loads(sys.argv[2])
    (bring if "url" in settings else serve_one)(Path(sys.argv[1]), settings)
