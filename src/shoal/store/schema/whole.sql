CREATE TABLE federation (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    created {real} NOT NULL
);

CREATE TABLE tokens (
    hash TEXT PRIMARY KEY,
    label TEXT NOT NULL,
    uses_left BIGINT NOT NULL CHECK (uses_left >= 0),
    expires {real} NOT NULL,
    created {real} NOT NULL
);

CREATE TABLE clients (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    public_key {blob} NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('active', 'revoked')),
    token_label TEXT NOT NULL,
    enrolled {real} NOT NULL,
    last_seen {real}
);

CREATE TABLE runs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    plan {blob} NOT NULL,
    plan_digest TEXT NOT NULL,
    rules TEXT NOT NULL,
    seed TEXT NOT NULL,
    study TEXT,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    round BIGINT NOT NULL,
    state {blob},
    model {blob},
    created {real} NOT NULL,
    updated {real} NOT NULL,
    step BIGINT NOT NULL
);

CREATE TABLE rounds (
    run TEXT NOT NULL,
    round BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('open', 'closing', 'closed', 'abandoned')),
    cohort BIGINT NOT NULL,
    opened {real} NOT NULL,
    closed {real},
    clients BIGINT,
    metrics TEXT,
    rejected TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (run, round, attempt)
);

CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    round BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    client TEXT NOT NULL,
    position BIGINT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT NOT NULL,
    scale {real} NOT NULL,
    manifest {blob},
    bytes BIGINT NOT NULL,
    train_s {real} NOT NULL,
    issued {real} NOT NULL,
    settled {real},
    summed BIGINT,
    UNIQUE (run, round, attempt, client)
);

CREATE INDEX tasks_by_status ON tasks (run, status, summed);

CREATE TABLE released (
    run TEXT NOT NULL,
    client TEXT NOT NULL,
    task TEXT NOT NULL,
    PRIMARY KEY (run, client)
);

CREATE TABLE audit (
    seq {serial},
    time {real} NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
);

CREATE TABLE secure_sessions (
    run TEXT NOT NULL,
    round BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    terms {blob} NOT NULL,
    PRIMARY KEY (run, round, attempt)
);

CREATE TABLE secure_steps (
    run TEXT NOT NULL,
    round BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    stage TEXT NOT NULL CHECK (stage IN ('advertise', 'share', 'mask', 'confirm', 'answer')),
    client TEXT NOT NULL,
    message {blob} NOT NULL,
    PRIMARY KEY (run, round, attempt, stage, client)
);

CREATE TABLE budget (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    epsilon {real} NOT NULL,
    delta {real} NOT NULL,
    since {real} NOT NULL
);

CREATE TABLE ledger (
    seq {serial},
    run TEXT NOT NULL,
    round BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    time {real} NOT NULL,
    event TEXT NOT NULL
);
