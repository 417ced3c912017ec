UPDATE rounds
SET status = 'closed', closed = :closed, clients = :clients, metrics = :metrics, rejected = :rejected
WHERE run = :run AND round = :round AND attempt = :attempt AND status IN ('open', 'closing')
