-- What every begin and every settlement would pay for and few messages need.

-- An attempt names the one before it of the same message, which names its newest: no index for messages that were tried more than once.
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

-- The vendor's id of the newest attempt stands with the message, which a settlement writes anyhow, and not with the attempt and its
-- text. Of attempts before the newest it stands there.
ALTER TABLE messages ADD COLUMN provider_id text COLLATE "C";

UPDATE messages SET provider_id = a.provider_id FROM attempts a
WHERE a.id = messages.attempt_id AND a.provider_id IS NOT NULL;

UPDATE attempts SET provider_id = NULL FROM messages m WHERE m.attempt_id = attempts.id AND attempts.provider_id IS NOT NULL;

DROP INDEX attempts_provider;
-- Receipts.
CREATE INDEX messages_provider ON messages (provider_id) WHERE provider_id IS NOT NULL;
