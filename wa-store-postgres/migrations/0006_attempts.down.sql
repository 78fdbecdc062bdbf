CREATE INDEX attempts_message ON attempts (message_id);
ALTER TABLE attempts DROP COLUMN earlier_id;
