-- The order in which events of a user were committed: ids are made by nodes before they commit, and their clocks differ. Whoever
-- adds an event has its user alone (lock.rs), so that a place is seen before any later one of the same user.
ALTER TABLE events ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY;
DROP INDEX events_user;
CREATE INDEX events_user ON events (user_id, seq);
