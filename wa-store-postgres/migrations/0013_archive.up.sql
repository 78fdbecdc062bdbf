-- Messages of campaigns that ended long ago, which are only read any more: out of the tables and indexes that sending uses.

-- Since when messages of a campaign go to the archive, and whether the last of them is there.
ALTER TABLE campaigns ADD COLUMN archived_at bigint, ADD COLUMN archived boolean NOT NULL DEFAULT false;

-- archive: what has started and ended.
CREATE INDEX campaigns_to_archive ON campaigns (ended_at, id)
    WHERE status IN (5, 6, 7) AND started_at IS NOT NULL AND NOT archived;

-- No foreign keys: rows come from messages alone, which has them, and what they name is never deleted.
CREATE TABLE archived_messages (LIKE messages);
ALTER TABLE archived_messages DROP COLUMN campaign_id, DROP COLUMN sequence_id, ADD PRIMARY KEY (id);

-- Lists; count.
CREATE INDEX archived_messages_user ON archived_messages (user_id, id);
CREATE INDEX archived_messages_scope ON archived_messages (scope_id, id);
CREATE INDEX archived_messages_device ON archived_messages (device_id, id) WHERE device_id IS NOT NULL;
CREATE INDEX archived_messages_lead ON archived_messages (lead_id, id) WHERE lead_id IS NOT NULL;
-- Lists; erase.
CREATE INDEX archived_messages_person ON archived_messages (person, id);

CREATE TABLE archived_attempts (LIKE attempts);
ALTER TABLE archived_attempts ADD PRIMARY KEY (message_id, id);

-- Of the attempts in the archive, the first of each device that was or may have been sent, from which its warm-up counts, and the last.
CREATE TABLE lane_pasts (
    device_id        uuid PRIMARY KEY,
    first_attempt_at bigint,
    last_attempt_at  bigint NOT NULL
);
