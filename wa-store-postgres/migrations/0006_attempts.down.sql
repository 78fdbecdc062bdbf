UPDATE attempts SET provider_id = m.provider_id FROM messages m WHERE m.attempt_id = attempts.id AND m.provider_id IS NOT NULL;
DROP INDEX messages_provider;
ALTER TABLE messages DROP COLUMN provider_id;
CREATE INDEX attempts_provider ON attempts (device_id, provider_id) WHERE provider_id IS NOT NULL;
CREATE INDEX attempts_message ON attempts (message_id);
ALTER TABLE attempts DROP COLUMN earlier_id;
