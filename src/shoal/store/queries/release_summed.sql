INSERT INTO released (run, client, task)
SELECT run, client, id
FROM (
    SELECT run, client, id, ROW_NUMBER() OVER (PARTITION BY client ORDER BY round DESC, attempt DESC) AS place
    FROM tasks WHERE run = :run AND status = 'counted' AND summed = :summed
) AS latest
WHERE place = 1
ON CONFLICT (run, client) DO UPDATE SET task = excluded.task
