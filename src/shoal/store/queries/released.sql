SELECT client, task FROM released WHERE run = :run
