INSERT INTO clients (id, name, public_key, status, token_label, enrolled)
VALUES (:id, :name, :public_key, 'active', :token_label, :enrolled)
