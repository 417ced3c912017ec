INSERT INTO federation (id, name, created) VALUES (1, :name, :created)
