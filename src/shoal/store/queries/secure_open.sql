INSERT INTO secure_sessions (run, round, attempt, terms) VALUES (:run, :round, :attempt, :terms)
