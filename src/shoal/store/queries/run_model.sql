UPDATE runs SET model = :model, updated = :updated WHERE id = :id AND round = :round
