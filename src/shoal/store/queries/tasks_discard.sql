UPDATE tasks SET summed = -1
WHERE run = :run AND status = 'counted' AND (summed IS NULL OR summed >= :round)
