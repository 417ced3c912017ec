UPDATE tasks SET summed = round
WHERE run = :run AND round = :round AND attempt = :attempt AND status = 'counted' AND summed IS NULL
