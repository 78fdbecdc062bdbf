-- Fewer rows of indexes to write for each message that is sent. What a device sent to a person is found by the person, and what is being
-- sent, for a moment only, by its device.
DROP INDEX messages_sent_to;
DROP INDEX messages_open;
-- sweep and completion of a campaign.
CREATE INDEX messages_open ON messages (scope_id, state, id) WHERE state < 5 AND state <> 3 AND scope_kind = 1;
