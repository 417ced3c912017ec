SELECT seq, time, actor, action, object, outcome, detail, previous, hash FROM audit ORDER BY seq DESC LIMIT 1
