SELECT id, name, public_key, status, token_label, enrolled, last_seen FROM clients WHERE public_key = :public_key
