ALTER TABLE tallies DROP CONSTRAINT tallies_pkey;
ALTER TABLE tallies ALTER remaining TYPE bigint, ALTER done TYPE bigint, ALTER delivered TYPE bigint, ALTER read TYPE bigint,
    ALTER replied TYPE bigint, ALTER undelivered TYPE bigint, ALTER failed TYPE bigint, ALTER skipped TYPE bigint, ALTER unknown TYPE bigint,
    ALTER cancelled TYPE bigint, ADD PRIMARY KEY (user_id, scope_kind, scope_id, device_id);
DROP INDEX messages_lead, messages_person, messages_pool;
CREATE INDEX messages_user ON messages (user_id, id);
CREATE INDEX messages_lead ON messages (lead_id, id) WHERE lead_id IS NOT NULL;
CREATE INDEX messages_person ON messages (person, id);
CREATE INDEX messages_sent_to ON messages (hashtextextended(phone, 0)) WHERE phone IS NOT NULL;
ALTER TABLE messages ADD FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id);
