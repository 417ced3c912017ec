SELECT stage, client, message FROM secure_steps
WHERE run = :run AND round = :round AND attempt = :attempt ORDER BY stage, client
