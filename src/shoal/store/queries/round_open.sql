INSERT INTO rounds (run, round, attempt, status, cohort, opened, rejected, reason)
VALUES (:run, :round, :attempt, 'open', :cohort, :opened, '', '')
