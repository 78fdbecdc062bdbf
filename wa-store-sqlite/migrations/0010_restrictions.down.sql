DROP TABLE acquaintances;
ALTER TABLE devices DROP COLUMN new_chats;
ALTER TABLE devices DROP COLUMN restriction_cause;
