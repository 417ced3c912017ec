INSERT INTO tokens (hash, label, uses_left, expires, created) VALUES (:hash, :label, :uses_left, :expires, :created)
