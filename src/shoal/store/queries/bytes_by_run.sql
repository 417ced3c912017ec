SELECT run, COUNT(*) AS tasks, CAST(SUM(bytes) AS BIGINT) AS bytes, SUM(train_s) AS train_s
FROM tasks WHERE status = 'counted' GROUP BY run ORDER BY run
