SELECT run, event, COUNT(*) AS releases FROM ledger GROUP BY run, event ORDER BY MIN(seq)
