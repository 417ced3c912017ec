"""A process that writes pairs of rows until it is killed, and says of each pair when it is durable.

python -m tests.store.writes_until_killed URL
"""

from __future__ import annotations

import sys
from collections import deque
from concurrent.futures import Future

from shoal.store.store import open_store
from tests.store.rows import audit


def main(url: str) -> None:
    store = open_store(url)
    asked: deque[tuple[int, Future[None]]] = deque()
    begins = len(store.read("audit", after=0, limit=10**6)) // 2
    for number in range(begins, 10**6):
        asked.append((number, store.write(audit(f"{number}"), audit(f"{number}, the same transaction"))))
        if len(asked) > 20:
            done, future = asked.popleft()
            future.result()
            print(done, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
