UPDATE tasks
SET status = :status, reason = :reason, scale = :scale, manifest = :manifest, bytes = :bytes, train_s = :train_s,
    settled = :settled
WHERE id = :id AND status = 'issued'
