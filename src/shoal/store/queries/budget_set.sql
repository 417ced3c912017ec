INSERT INTO budget (id, epsilon, delta, since) VALUES (1, :epsilon, :delta, :since)
ON CONFLICT (id) DO UPDATE SET epsilon = excluded.epsilon, delta = excluded.delta, since = excluded.since
