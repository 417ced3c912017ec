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
