CREATE TABLE runs (
    run TEXT PRIMARY KEY,
    info BLOB NOT NULL
);

CREATE TABLE tasks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    task TEXT NOT NULL UNIQUE,
    run TEXT NOT NULL,
    message BLOB NOT NULL,
    stage TEXT NOT NULL CHECK (stage IN ('taken', 'trained', 'settled')),
    begun INTEGER NOT NULL DEFAULT 0,
    result BLOB,
    state TEXT,
    train_s REAL NOT NULL DEFAULT 0,
    verdict TEXT NOT NULL DEFAULT ''
);

CREATE INDEX tasks_by_stage ON tasks (stage, seq);
