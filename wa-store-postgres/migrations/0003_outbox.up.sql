CREATE TABLE messages (
    id                   uuid PRIMARY KEY,
    user_id              uuid NOT NULL,
    -- The campaign or sequence, else the user: what messages of one lane take turns by.
    scope_id             uuid NOT NULL,
    campaign_id          uuid GENERATED ALWAYS AS (CASE WHEN scope_kind = 1 THEN scope_id END) STORED,
    sequence_id          uuid GENERATED ALWAYS AS (CASE WHEN scope_kind = 2 THEN scope_id END) STORED,
    -- Which flow it is: set of messages of sequences alone.
    enrolment_id         uuid,
    step_id              uuid,
    key                  uuid NOT NULL UNIQUE,
    supersedes           uuid,
    lead_id              uuid,
    person               uuid NOT NULL,
    device_id            uuid,
    attempt_id           uuid,
    due_at               bigint NOT NULL,
    expires_at           bigint NOT NULL,
    created_at           bigint NOT NULL,
    held_at              bigint,
    settled_at           bigint,
    delivery_at          bigint,
    epoch                bigint,
    doubt_since_at       bigint,
    next_check_at        bigint,
    steps_version        integer CHECK (steps_version > 0),
    round                integer NOT NULL,
    refusal_count        integer NOT NULL DEFAULT 0,
    scope_kind           smallint NOT NULL CHECK (scope_kind BETWEEN 1 AND 5),
    priority             smallint NOT NULL CHECK (priority BETWEEN 0 AND 2),
    -- 1 queued, 2 held, 3 sending, 4 in doubt, 5 sent, 6 failed, 7 unknown, 8 skipped, 9 cancelled.
    state                smallint NOT NULL CHECK (state BETWEEN 1 AND 9),
    reason               smallint CHECK (reason BETWEEN 1 AND 99),
    delivery             smallint CHECK (delivery BETWEEN 1 AND 4),
    not_found_count      smallint,
    resend_count         smallint,
    superseded           boolean NOT NULL DEFAULT false,
    from_pool            boolean NOT NULL,
    override_suppression boolean NOT NULL,
    phone                text COLLATE "C",
    name                 text NOT NULL,
    custom               text,
    content              text,
    delay                text,
    detail               text,
    doubt_cause          text,
    CHECK (state <> 3 OR (attempt_id IS NOT NULL AND epoch IS NOT NULL AND device_id IS NOT NULL)),
    CHECK (state <> 4 OR (attempt_id IS NOT NULL AND next_check_at IS NOT NULL AND device_id IS NOT NULL)),
    CHECK (state <> 2 OR held_at IS NOT NULL),
    CHECK (state < 5 OR settled_at IS NOT NULL),
    CHECK (state > 4 OR settled_at IS NULL),
    CHECK ((attempt_id IS NULL) = (epoch IS NULL)),
    CHECK ((scope_kind = 2) = (enrolment_id IS NOT NULL)),
    CHECK ((enrolment_id IS NULL) = (step_id IS NULL) AND (step_id IS NULL) = (steps_version IS NULL)),
    CHECK ((doubt_since_at IS NULL) = (next_check_at IS NULL)),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id),
    FOREIGN KEY (user_id, campaign_id) REFERENCES campaigns (user_id, id),
    FOREIGN KEY (user_id, sequence_id) REFERENCES sequences (user_id, id),
    FOREIGN KEY (user_id, enrolment_id) REFERENCES enrolments (user_id, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

-- due: the heads of a lane. A queued row is here and nowhere else that begin would have to search.
CREATE INDEX messages_queue ON messages (device_id, priority, scope_id, due_at, id) WHERE state = 1;
-- expire.
CREATE INDEX messages_expiry ON messages (expires_at, id) WHERE state = 1;
-- pool: queued rows without a device, of each campaign the oldest.
CREATE INDEX messages_pool ON messages (scope_id, due_at, id) WHERE state = 1 AND device_id IS NULL;
-- loads, unassign: pool messages that have a device.
CREATE INDEX messages_topped_up ON messages (device_id, id) WHERE state = 1 AND from_pool AND device_id IS NOT NULL;
-- begin: one message at a time per device. sending, release, leave, fence.
CREATE UNIQUE INDEX messages_sending ON messages (device_id) WHERE state = 3;
-- doubts.
CREATE INDEX messages_doubt ON messages (device_id, next_check_at, id) WHERE state = 4;
-- sweep of a deleted device.
CREATE INDEX messages_held ON messages (device_id, id) WHERE state = 2;
-- sweep and completion of a campaign, sweep of a sequence.
CREATE INDEX messages_open ON messages (scope_id, state, id) WHERE state < 5 AND scope_kind < 3;
-- The messages of an enrolment, of one step of it, and the order in which its steps came.
CREATE INDEX messages_flow ON messages (enrolment_id, step_id, round) WHERE enrolment_id IS NOT NULL;
-- The gate of a flow's message: a step that is sent again comes before those after it.
CREATE INDEX messages_resent ON messages (enrolment_id) WHERE state < 5 AND scope_kind = 2 AND round > 0;
-- What waits for such a step, or for its sequence.
CREATE INDEX messages_held_flows ON messages (enrolment_id) WHERE state = 2 AND scope_kind = 2;
-- recent, of a campaign or sequence, and of a device.
CREATE INDEX messages_recent_scope ON messages (scope_id, settled_at, id) WHERE state IN (5, 6, 7) AND scope_kind < 3;
CREATE INDEX messages_recent_device ON messages (device_id, settled_at, id) WHERE state IN (5, 6, 7);
-- Receipts by recipient, replies.
CREATE INDEX messages_sent_to ON messages (device_id, phone) WHERE state = 5;
-- Lists. Their columns hardly ever change after the insert.
CREATE INDEX messages_user ON messages (user_id, id);
CREATE INDEX messages_scope ON messages (scope_id, id) WHERE scope_kind < 3;
CREATE INDEX messages_device ON messages (device_id, id) WHERE device_id IS NOT NULL;
CREATE INDEX messages_lead ON messages (lead_id, id) WHERE lead_id IS NOT NULL;
-- suppress, erase, persons_in, the greeting before this one.
CREATE INDEX messages_person ON messages (person, id);

-- Every attempt of every message; a message names its newest. No foreign key: it would lock and rewrite the message once more
-- in every begin, and nothing but begin and insert, which hold the message, writes attempts.
CREATE TABLE attempts (
    id                   uuid PRIMARY KEY,
    message_id           uuid NOT NULL,
    device_id            uuid NOT NULL,
    epoch                bigint NOT NULL,
    attempted_at         bigint NOT NULL,
    -- NULL where it is the text of the id.
    transport_message_id text COLLATE "C",
    provider_id          text COLLATE "C",
    greeting             text,
    text                 text NOT NULL
) WITH (fillfactor = 85);

CREATE INDEX attempts_message ON attempts (message_id);
-- history, loads.
CREATE INDEX attempts_device ON attempts (device_id, attempted_at);
-- Receipts.
CREATE INDEX attempts_ours ON attempts (device_id, transport_message_id) WHERE transport_message_id IS NOT NULL;
CREATE INDEX attempts_provider ON attempts (device_id, provider_id) WHERE provider_id IS NOT NULL;

-- Numbers of a scope per device; a device of noughts is the pool. Changed in the commit that changes what they count. No number
-- is part of an index, so that a change stays on its page.
CREATE TABLE tallies (
    user_id     uuid NOT NULL,
    scope_kind  smallint NOT NULL,
    scope_id    uuid NOT NULL,
    device_id   uuid NOT NULL,
    done        bigint NOT NULL CHECK (done >= 0),
    failed      bigint NOT NULL CHECK (failed >= 0),
    skipped     bigint NOT NULL CHECK (skipped >= 0),
    unknown     bigint NOT NULL CHECK (unknown >= 0),
    cancelled   bigint NOT NULL CHECK (cancelled >= 0),
    remaining   bigint NOT NULL CHECK (remaining >= 0),
    delivered   bigint NOT NULL CHECK (delivered >= 0),
    undelivered bigint NOT NULL CHECK (undelivered >= 0),
    read        bigint NOT NULL CHECK (read >= 0),
    replied     bigint NOT NULL CHECK (replied >= 0),
    PRIMARY KEY (user_id, scope_kind, scope_id, device_id)
) WITH (fillfactor = 50);

CREATE INDEX tallies_device ON tallies (device_id);

-- Replies that were taken, so that one delivered twice counts once.
CREATE TABLE replies (
    device_id   uuid NOT NULL,
    provider_id text COLLATE "C" NOT NULL,
    -- When it was recorded.
    at          bigint NOT NULL,
    PRIMARY KEY (device_id, provider_id)
);

CREATE INDEX replies_age ON replies (at);
