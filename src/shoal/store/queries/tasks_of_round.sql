SELECT id, run, round, attempt, client, position, status, reason, scale, manifest, bytes, train_s, issued, settled, summed
FROM tasks WHERE run = :run AND round = :round AND attempt = :attempt ORDER BY position
