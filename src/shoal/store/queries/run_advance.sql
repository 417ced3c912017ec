UPDATE runs SET round = :round, state = :state, model = :model, updated = :updated WHERE id = :id AND round + 1 = :round
