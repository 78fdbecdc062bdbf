ALTER TABLE lanes DROP COLUMN turn;
ALTER TABLE lanes ADD COLUMN sending smallint NOT NULL DEFAULT 0;
UPDATE lanes SET message_id = NULL WHERE message_id IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM messages m WHERE m.id = lanes.message_id AND m.state = 3 AND m.device_id = lanes.device_id
);
UPDATE lanes SET sending = 1 WHERE message_id IS NOT NULL;
ALTER TABLE lanes ADD CONSTRAINT lanes_one_at_a_time CHECK (sending BETWEEN 0 AND 1),
    ADD CHECK ((sending = 1) = (message_id IS NOT NULL));
UPDATE outcomes SET device_id = m.device_id FROM messages m
WHERE m.id = outcomes.message_id AND outcomes.settled_at IS NOT NULL AND outcomes.device_id IS NULL;
INSERT INTO outcomes (message_id, device_id, settled_at)
SELECT m.id, m.device_id, m.settled_at FROM messages m
WHERE m.state = 5 AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.message_id = m.id AND o.settled_at IS NOT NULL);
ALTER TABLE tallies DROP CONSTRAINT tallies_pkey;
ALTER TABLE tallies ALTER remaining TYPE bigint, ALTER done TYPE bigint, ALTER delivered TYPE bigint, ALTER read TYPE bigint,
    ALTER replied TYPE bigint, ALTER undelivered TYPE bigint, ALTER failed TYPE bigint, ALTER skipped TYPE bigint, ALTER unknown TYPE bigint,
    ALTER cancelled TYPE bigint, ADD PRIMARY KEY (user_id, scope_kind, scope_id, device_id);
DROP INDEX messages_lead, messages_person;
CREATE INDEX messages_lead ON messages (lead_id, id) WHERE lead_id IS NOT NULL;
CREATE INDEX messages_person ON messages (person, id);
CREATE INDEX messages_sent_to ON messages (hashtextextended(phone, 0)) WHERE phone IS NOT NULL;
ALTER TABLE messages ADD FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id);
