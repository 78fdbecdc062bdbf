DROP INDEX events_user;
ALTER TABLE events DROP COLUMN seq;
CREATE INDEX events_user ON events (user_id, id);
