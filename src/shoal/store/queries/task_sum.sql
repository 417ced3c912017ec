UPDATE tasks SET summed = :summed WHERE id = :id AND status = 'counted' AND summed IS NULL
