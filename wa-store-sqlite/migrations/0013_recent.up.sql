-- recent, of a campaign, a sequence and a device. SQLite keeps a list of three states as a table of its own, and searches it for each row that is
-- written, twice for one that is changed; bounds it only compares. What is false most often comes first.
DROP INDEX messages_recent_scope;
DROP INDEX messages_recent_sequence;
DROP INDEX messages_recent_device;
CREATE INDEX messages_recent_scope ON messages (scope_id, settled_at, id) WHERE scope_kind = 1 AND state BETWEEN 5 AND 7;
CREATE INDEX messages_recent_sequence ON messages (scope_id, settled_at, id) WHERE scope_kind = 2 AND state BETWEEN 5 AND 7;
CREATE INDEX messages_recent_device ON messages (device_id, settled_at, id) WHERE state BETWEEN 5 AND 7;
