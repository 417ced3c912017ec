INSERT INTO ledger (run, round, attempt, time, event) VALUES (:run, :round, :attempt, :time, :event)
