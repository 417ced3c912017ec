INSERT INTO audit (time, actor, action, object, outcome, detail, previous, hash)
VALUES (:time, :actor, :action, :object, :outcome, :detail, :previous, :hash)
