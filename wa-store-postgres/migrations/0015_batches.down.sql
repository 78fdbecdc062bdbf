DROP TRIGGER campaigns_deleted ON campaigns;
DROP TRIGGER messages_moved ON messages;
DROP TRIGGER messages_added ON messages;
DROP FUNCTION campaign_has_no_messages, message_has_scope, messages_have_scopes;
ALTER TABLE messages
    ADD COLUMN campaign_id uuid GENERATED ALWAYS AS (CASE WHEN scope_kind = 1 THEN scope_id END) STORED,
    ADD COLUMN sequence_id uuid GENERATED ALWAYS AS (CASE WHEN scope_kind = 2 THEN scope_id END) STORED,
    ADD FOREIGN KEY (user_id, campaign_id) REFERENCES campaigns (user_id, id),
    ADD FOREIGN KEY (user_id, sequence_id) REFERENCES sequences (user_id, id);
DROP INDEX messages_person;
CREATE INDEX messages_person ON messages (person);
INSERT INTO outcomes (message_id, scope_id, settled_at)
SELECT m.id, o.scope_id, o.settled_at FROM outcomes o CROSS JOIN LATERAL unnest(o.message_ids) AS u (id)
JOIN messages m ON m.id = u.id WHERE o.message_ids IS NOT NULL;
DELETE FROM outcomes WHERE message_ids IS NOT NULL;
ALTER TABLE outcomes DROP COLUMN message_ids, ALTER COLUMN message_id SET NOT NULL;
ANALYZE messages;
