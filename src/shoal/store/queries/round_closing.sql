UPDATE rounds SET status = 'closing' WHERE run = :run AND round = :round AND attempt = :attempt AND status = 'open'
