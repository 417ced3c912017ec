"""A process a core for large torch models: two clients side by side beat two cores inside one operation.

Workers are forked, so they have the module and the population without a copy, and numbers pass through shared memory.
A worker uses torch and NumPy and never JAX, whose threads do not survive a fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import heapq
import mmap
import multiprocessing
import signal
import sys
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from shoal import errors
from shoal.errors import RunError
from shoal.extras import needed
from shoal.simulation.torch_clients import Added, Job, OneByOne, Rows, Sink, Told

torch = needed("torch", "torch")

Array = np.ndarray[Any, Any]
Tensor = Any


def can_fork() -> bool:
    """Whether workers can be forked here: on Linux, and in a process that may have children."""
    return sys.platform == "linux" and not multiprocessing.current_process().daemon


class Workers:
    """Trains clients like `OneByOne`, a part of them in each of several processes.

    Clients are dealt by their number of examples, largest first, so what a worker adds up does not depend on how
    fast it is. Workers start at the first job and end with this object.
    """

    def __init__(self, crew: OneByOne, size: int, *, rows: int, workers: int, counts: Array | None) -> None:
        self._crew, self._counts, self._workers = crew, counts, workers
        self._start = shared(size)
        self._sums = [shared(size) for _ in range(workers)]
        self._rows = shared(rows * size).view(rows, size)
        self._lines: list[Any] = []

    def __str__(self) -> str:
        return str(self._workers)

    @property
    def rows(self) -> Tensor:
        """Where workers put what changed on each client. It takes memory when it is used."""
        return self._rows

    def train(self, job: Job, start: Tensor, sink: Sink) -> Told:
        """Trains the clients of a job; what changed is in `rows`, or added to the sink's total."""
        if not self._lines:
            self._lines = self._begun()
        self._start.copy_(start)
        told = Told.nothing(len(job.places))
        parts = _dealt(job.places, self._counts, self._workers)
        cap = sink.cap if isinstance(sink, Added) else None
        for line, part in zip(self._lines, parts, strict=True):
            _say(line, (job.part(part), part, isinstance(sink, Added), cap))
        for line, part in zip(self._lines, parts, strict=True):
            some = _heard(line)
            told.examples[part], told.usable[part], told.loss[part] = some.examples, some.usable, some.loss
            told.failed.update({int(part[row]): why for row, why in some.failed.items()})
        if isinstance(sink, Added):
            for total in self._sums:
                sink.total.add_(total)
        return told

    def _begun(self) -> list[Any]:
        """Forks the workers; the ends of their lines."""
        forking = multiprocessing.get_context("fork")
        lines: list[Any] = []
        processes: list[Any] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # JAX warns of every fork; these children never use it
            for place in range(self._workers):
                line, end = forking.Pipe()
                given = (self._crew, end, [*lines, line], self._start, self._sums[place], self._rows)
                process = forking.Process(target=_work, args=given, daemon=True, name=f"shoal worker {place}")
                process.start()
                end.close()
                lines.append(line)
                processes.append(process)
        weakref.finalize(self, _end, lines, processes)
        return lines


def shared(size: int) -> Tensor:
    """A vector of zeros in memory that is shared with processes forked later."""
    return torch.from_numpy(np.frombuffer(mmap.mmap(-1, max(4 * size, 1)), np.float32, size))


def _work(crew: OneByOne, line: Any, others: list[Any], start: Tensor, total: Tensor, rows: Tensor) -> None:
    """What a worker does until its line ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    for other in others:  # else a line would stay open after the parent is gone
        other.close()
    gc.freeze()  # what the parent's objects hold is not this process's to give back
    torch.set_num_threads(1)
    _keep_memory()
    with contextlib.suppress(EOFError, OSError):
        while True:
            job, part, adds, cap = line.recv()
            try:
                sink = Added(total.zero_(), cap) if adds else Rows(rows, part.tolist())
                answer: Any = crew.train(job, start, sink)
            except Exception as error:
                answer = type(error).__name__, str(error)
            line.send(answer)


def _keep_memory() -> None:
    """Keeps freed memory for the next batch: glibc gives large blocks back at once, and zeroing them takes longer
    than computing on them."""
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in ((-4, 0), (-1, 2**31 - 1)):  # M_MMAP_MAX, M_TRIM_THRESHOLD
            library.mallopt(option, value)


def _say(line: Any, words: Any) -> None:
    try:
        line.send(words)
    except OSError as error:
        raise _died() from error


def _heard(line: Any) -> Told:
    try:
        answer = line.recv()
    except (EOFError, OSError) as error:
        raise _died() from error
    if isinstance(answer, Told):
        return answer
    kind, message = answer
    found = getattr(errors, kind, None)
    raise found(message) if found is not None else RunError(f"a worker process failed: {kind}: {message}")


def _died() -> RunError:
    return RunError(
        "a worker process ended while it trained clients, as when memory runs out: use a smaller batch_size, or "
        "runtime='local' for one process"
    )


def _end(lines: Sequence[Any], processes: Sequence[Any]) -> None:
    for line in lines:
        line.close()
    for process in processes:
        process.terminate()
        process.join()


def _dealt(places: Array, counts: Array | None, parts: int) -> list[Array]:
    """The rows of a job dealt out so that each part has about as many examples: largest first, to the least loaded."""
    sizes = np.ones(len(places), np.int64) if counts is None else counts[places]
    dealt: list[list[int]] = [[] for _ in range(parts)]
    loads = [(0, part) for part in range(parts)]
    for row in np.argsort(-sizes, kind="stable").tolist():
        load, part = heapq.heappop(loads)
        dealt[part].append(row)
        heapq.heappush(loads, (load + int(sizes[row]), part))
    return [np.array(rows, np.int64) for rows in dealt]
