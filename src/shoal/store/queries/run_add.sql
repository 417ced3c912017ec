INSERT INTO runs (id, name, plan, plan_digest, rules, seed, study, status, reason, round, state, model, created, updated,
    step)
VALUES (:id, :name, :plan, :plan_digest, :rules, :seed, :study, :status, :reason, 0, :state, :model, :created, :created,
    0)
