DELETE FROM secure_sessions WHERE run = :run AND round <= :round
