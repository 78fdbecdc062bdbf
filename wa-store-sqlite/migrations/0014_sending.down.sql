DROP INDEX messages_open;
CREATE INDEX messages_open ON messages (scope_id, state, id) WHERE state < 5 AND scope_kind = 1;
CREATE INDEX messages_sent_to ON messages (device_id, phone) WHERE state = 5;
