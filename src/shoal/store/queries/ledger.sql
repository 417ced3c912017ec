SELECT seq, run, round, attempt, time, event FROM ledger ORDER BY seq
