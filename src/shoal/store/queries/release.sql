INSERT INTO released (run, client, task) VALUES (:run, :client, :task)
ON CONFLICT (run, client) DO UPDATE SET task = excluded.task
