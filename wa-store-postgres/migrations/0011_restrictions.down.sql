DROP TABLE acquaintances;
ALTER TABLE devices DROP COLUMN new_chats, DROP COLUMN restriction_cause;
