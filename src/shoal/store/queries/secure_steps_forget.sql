DELETE FROM secure_steps WHERE run = :run AND round <= :round
