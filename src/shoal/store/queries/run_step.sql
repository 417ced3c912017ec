UPDATE runs SET step = step + 1 WHERE id = :id AND step = :step
