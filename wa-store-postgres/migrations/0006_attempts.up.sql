-- An attempt names the one before it of the same message, which names its newest: an index for messages that were tried more than
-- once, which few are, would be written by every begin and every settlement.
ALTER TABLE attempts ADD COLUMN earlier_id uuid;

UPDATE attempts SET earlier_id = o.earlier_id
FROM (
    SELECT a.id, lag(a.id) OVER (
        PARTITION BY a.message_id ORDER BY a.id IS NOT DISTINCT FROM m.attempt_id, a.attempted_at, a.id
    ) AS earlier_id
    FROM attempts a JOIN messages m ON m.id = a.message_id
) AS o
WHERE attempts.id = o.id AND o.earlier_id IS NOT NULL;

DROP INDEX attempts_message;
