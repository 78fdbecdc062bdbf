DROP INDEX messages_left_over;
DROP TABLE campaign_taken;
ALTER TABLE campaigns DROP COLUMN device_limit;
