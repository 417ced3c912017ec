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
