SELECT id, name, plan, plan_digest, rules, seed, study, status, reason, round, state, model, created, updated
FROM runs WHERE name = :name
