SELECT name, created FROM federation WHERE id = 1
