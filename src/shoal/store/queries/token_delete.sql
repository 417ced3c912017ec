DELETE FROM tokens WHERE hash = :hash
