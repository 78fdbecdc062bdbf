DROP INDEX messages_recent_scope;
DROP INDEX messages_recent_sequence;
DROP INDEX messages_recent_device;
CREATE INDEX messages_recent_scope ON messages (scope_id, settled_at, id) WHERE state IN (5, 6, 7) AND scope_kind = 1;
CREATE INDEX messages_recent_sequence ON messages (scope_id, settled_at, id) WHERE state IN (5, 6, 7) AND scope_kind = 2;
CREATE INDEX messages_recent_device ON messages (device_id, settled_at, id) WHERE state IN (5, 6, 7);
