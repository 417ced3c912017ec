SELECT hash, label, uses_left, expires, created FROM tokens WHERE hash = :hash
