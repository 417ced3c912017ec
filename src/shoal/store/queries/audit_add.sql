INSERT INTO audit (time, actor, action, object, outcome, detail, previous, hash)
SELECT :time, :actor, :action, :object, :outcome, :detail, last.hash,
    encode(sha256(convert_to(last.hash || :said, 'UTF8')), 'hex')
FROM (SELECT COALESCE((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), :nothing) AS hash) AS last
