CREATE INDEX messages_sent_to ON messages (device_id, phone) WHERE state = 5;
