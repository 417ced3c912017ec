INSERT INTO secure_steps (run, round, attempt, stage, client, message)
VALUES (:run, :round, :attempt, :stage, :client, :message)
