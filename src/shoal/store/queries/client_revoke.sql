UPDATE clients SET status = 'revoked' WHERE id = :id AND status = 'active'
