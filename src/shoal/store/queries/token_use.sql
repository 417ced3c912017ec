UPDATE tokens SET uses_left = uses_left - 1 WHERE hash = :hash AND uses_left > 0 AND expires > :now
