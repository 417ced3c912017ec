CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    kind TEXT NOT NULL,
    run TEXT NOT NULL,
    run_name TEXT NOT NULL,
    plan TEXT NOT NULL,
    round INTEGER,
    task TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    detail TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS entries_by_time ON entries (kind, time);
CREATE INDEX IF NOT EXISTS entries_by_run ON entries (kind, run);

CREATE TABLE IF NOT EXISTS head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS traffic (
    day TEXT NOT NULL,
    kind TEXT NOT NULL,
    messages INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (day, kind)
);

CREATE TRIGGER IF NOT EXISTS entries_stay BEFORE UPDATE ON entries
BEGIN SELECT RAISE(ABORT, 'a ledger is only added to'); END;

CREATE TRIGGER IF NOT EXISTS entries_remain BEFORE DELETE ON entries
BEGIN SELECT RAISE(ABORT, 'a ledger is only added to'); END;

CREATE TRIGGER IF NOT EXISTS entries_follow BEFORE INSERT ON entries
WHEN NEW.seq <> (SELECT seq + 1 FROM head)
BEGIN SELECT RAISE(ABORT, 'a ledger is only added to'); END;

CREATE TRIGGER IF NOT EXISTS head_moves_on BEFORE UPDATE ON head
WHEN NEW.seq <> OLD.seq + 1
BEGIN SELECT RAISE(ABORT, 'a ledger is only added to'); END;

CREATE TRIGGER IF NOT EXISTS head_remains BEFORE DELETE ON head
BEGIN SELECT RAISE(ABORT, 'a ledger is only added to'); END;

INSERT INTO head (id, seq, hash) SELECT 1, 0, '' WHERE NOT EXISTS (SELECT 1 FROM head);
