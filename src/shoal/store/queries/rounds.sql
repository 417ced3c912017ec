SELECT run, round, attempt, status, cohort, opened, closed, clients, metrics, rejected, reason
FROM rounds WHERE run = :run ORDER BY round, attempt
