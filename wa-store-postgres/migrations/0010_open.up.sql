-- What changes while a message is sent, apart from what stays. No index of messages names a column that a begin or a settlement
-- writes, so that both change the row in its place (HOT); what is found by its state stands in narrow tables beside it, which are
-- written in the statements that change it. Space for two changes of every row of a page, because a batch takes them together.

-- Queued messages, each at its place in its lane; without a device (noughts) they are the pool. due: the heads of a lane. sweep: what
-- is queued of a scope, by the devices that its tallies name.
CREATE TABLE queue (
    device_id  uuid NOT NULL,
    scope_id   uuid NOT NULL,
    message_id uuid NOT NULL,
    due_at     bigint NOT NULL,
    expires_at bigint NOT NULL,
    priority   smallint NOT NULL,
    from_pool  boolean NOT NULL,
    PRIMARY KEY (device_id, priority, scope_id, due_at, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

INSERT INTO queue (device_id, scope_id, message_id, due_at, expires_at, priority, from_pool)
SELECT coalesce(device_id, '00000000-0000-0000-0000-000000000000'), scope_id, id, due_at, expires_at, priority, from_pool
FROM messages WHERE state = 1;

-- expire.
CREATE INDEX queue_expiry ON queue (expires_at);
-- loads, unassign: pool messages that have a device.
CREATE INDEX queue_topped_up ON queue (device_id)
    WHERE from_pool AND device_id <> '00000000-0000-0000-0000-000000000000';

-- Messages that are held, and those in doubt.
CREATE TABLE parked (
    message_id    uuid PRIMARY KEY,
    device_id     uuid,
    scope_id      uuid NOT NULL,
    next_check_at bigint,
    state         smallint NOT NULL CHECK (state IN (2, 4)),
    CHECK (state = 2 OR (next_check_at IS NOT NULL AND device_id IS NOT NULL))
);

INSERT INTO parked (message_id, device_id, scope_id, next_check_at, state)
SELECT id, device_id, scope_id, next_check_at, state FROM messages WHERE state IN (2, 4);

-- doubts; sweep of a deleted device.
CREATE INDEX parked_device ON parked (device_id, state, next_check_at, message_id) WHERE device_id IS NOT NULL;
-- sweep of a scope.
CREATE INDEX parked_scope ON parked (scope_id, state, message_id);

-- What each device is sending: one message at a time, which the count proves where two begin at once. A row comes with its device.
CREATE TABLE lanes (
    device_id  uuid PRIMARY KEY REFERENCES devices (id),
    message_id uuid,
    sending    smallint NOT NULL DEFAULT 0,
    CONSTRAINT lanes_one_at_a_time CHECK (sending BETWEEN 0 AND 1),
    CHECK ((sending = 1) = (message_id IS NOT NULL))
) WITH (fillfactor = 30);

INSERT INTO lanes (device_id, message_id, sending)
SELECT d.id, m.id, CASE WHEN m.id IS NULL THEN 0 ELSE 1 END
FROM devices d LEFT JOIN messages m ON m.device_id = d.id AND m.state = 3;

-- When messages were sent, failed or became unknown, and a mark of the id by which the vendor knows them: its hash. A message may
-- have several rows, of which one has the instant. Rows are only ever added.
CREATE TABLE outcomes (
    message_id uuid NOT NULL,
    device_id  uuid,
    -- The campaign or sequence.
    scope_id   uuid,
    settled_at bigint,
    mark       bigint
);

INSERT INTO outcomes (message_id, device_id, scope_id, settled_at, mark)
SELECT id, CASE WHEN state IN (5, 6, 7) THEN device_id END, CASE WHEN state IN (5, 6, 7) AND scope_kind < 3 THEN scope_id END,
    CASE WHEN state IN (5, 6, 7) THEN settled_at END, hashtextextended(provider_id, 0)
FROM messages WHERE state IN (5, 6, 7) OR provider_id IS NOT NULL ORDER BY settled_at;

-- recent.
CREATE INDEX outcomes_device ON outcomes (device_id, settled_at) WHERE device_id IS NOT NULL;
CREATE INDEX outcomes_scope ON outcomes (scope_id, settled_at) WHERE scope_id IS NOT NULL;
-- Receipts.
CREATE INDEX outcomes_mark ON outcomes (mark) WHERE mark IS NOT NULL;

-- Messages that were skipped for the limit of their campaign, and not taken up since.
CREATE TABLE left_over (
    campaign_id uuid NOT NULL,
    message_id  uuid NOT NULL,
    PRIMARY KEY (campaign_id, message_id)
);

INSERT INTO left_over (campaign_id, message_id)
SELECT scope_id, id FROM messages WHERE scope_kind = 1 AND state = 8 AND reason = 25 AND NOT superseded;

DROP INDEX messages_queue, messages_expiry, messages_pool, messages_topped_up, messages_sending, messages_doubt, messages_held,
    messages_open, messages_resent, messages_held_flows, messages_recent_scope, messages_recent_device, messages_sent_to,
    messages_left_over, messages_provider;
-- Receipts by recipient, replies: by a hash, which is shorter than a number.
CREATE INDEX messages_sent_to ON messages (hashtextextended(phone, 0)) WHERE phone IS NOT NULL;

ALTER TABLE messages SET (fillfactor = 40);
