-- Events of a user are read in the order of their rows, which is that of the commits, and not by ids, which are made before.
DROP INDEX events_user;
CREATE INDEX events_user_order ON events (user_id);
