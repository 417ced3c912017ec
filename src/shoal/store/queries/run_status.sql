UPDATE runs SET status = :status, reason = :reason, updated = :updated WHERE id = :id
