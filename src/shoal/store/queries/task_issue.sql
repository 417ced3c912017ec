INSERT INTO tasks (id, run, round, attempt, client, position, status, reason, scale, bytes, train_s, issued)
VALUES (:id, :run, :round, :attempt, :client, :position, 'issued', '', 1.0, 0, 0.0, :issued)
