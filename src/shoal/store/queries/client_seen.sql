UPDATE clients SET last_seen = :now WHERE id = :id
