SELECT hash, label, uses_left, expires, created FROM tokens ORDER BY created, hash
