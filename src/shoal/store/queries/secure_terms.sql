SELECT terms FROM secure_sessions WHERE run = :run AND round = :round AND attempt = :attempt
