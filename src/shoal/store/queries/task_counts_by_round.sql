SELECT round, attempt, status, COUNT(*) AS tasks FROM tasks
WHERE run = :run GROUP BY round, attempt, status ORDER BY round, attempt, status
