UPDATE rounds SET status = 'abandoned', closed = :closed, reason = :reason
WHERE run = :run AND round = :round AND attempt = :attempt AND status IN ('open', 'closing')
