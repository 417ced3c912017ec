UPDATE clients SET name = :name WHERE id = :id
