SELECT id, run, round, attempt, client, position, status, reason, scale, manifest, bytes, train_s, issued, settled, summed
FROM tasks WHERE run = :run AND status = 'issued'
UNION ALL
SELECT id, run, round, attempt, client, position, status, reason, scale, manifest, bytes, train_s, issued, settled, summed
FROM tasks WHERE run = :run AND status = 'counted' AND summed IS NULL
UNION ALL
SELECT id, run, round, attempt, client, position, status, reason, scale, manifest, bytes, train_s, issued, settled, summed
FROM tasks WHERE run = :run AND status = 'counted' AND summed >= (SELECT round FROM runs WHERE id = :run)
ORDER BY round, attempt, position
