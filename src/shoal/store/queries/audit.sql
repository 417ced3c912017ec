SELECT seq, time, actor, action, object, outcome, detail, previous, hash FROM audit
WHERE seq > :after ORDER BY seq LIMIT :limit
