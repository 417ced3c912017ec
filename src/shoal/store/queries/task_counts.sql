SELECT status, COUNT(*) AS tasks FROM tasks WHERE run = :run GROUP BY status ORDER BY status
