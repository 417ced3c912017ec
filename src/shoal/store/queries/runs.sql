SELECT id, name, plan, plan_digest, rules, seed, study, status, reason, round, state, model, created, updated,
    step
FROM runs ORDER BY created, id
