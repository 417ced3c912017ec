SELECT task FROM released WHERE run = :run AND client = :client
