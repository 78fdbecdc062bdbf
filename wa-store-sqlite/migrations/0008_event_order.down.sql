DROP INDEX events_user_order;
CREATE INDEX events_user ON events (user_id, id);
