CREATE TABLE messages (
    seq                  INTEGER PRIMARY KEY,
    id                   BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    user_id              BLOB NOT NULL CHECK (length(user_id) = 16),
    scope_kind           INTEGER NOT NULL CHECK (scope_kind BETWEEN 1 AND 5),
    -- The campaign or sequence, else the user: what messages of one lane take turns by.
    scope_id             BLOB NOT NULL CHECK (length(scope_id) = 16),
    campaign_id          BLOB AS (CASE WHEN scope_kind = 1 THEN scope_id END) VIRTUAL,
    sequence_id          BLOB AS (CASE WHEN scope_kind = 2 THEN scope_id END) VIRTUAL,
    -- Which flow it is: set of messages of sequences alone.
    enrolment_id         BLOB CHECK (length(enrolment_id) = 16),
    step_id              BLOB CHECK (length(step_id) = 16),
    steps_version        INTEGER CHECK (steps_version > 0),
    priority             INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 2),
    key                  BLOB NOT NULL UNIQUE CHECK (length(key) = 16),
    round                INTEGER NOT NULL,
    supersedes           BLOB CHECK (length(supersedes) = 16),
    superseded           INTEGER NOT NULL DEFAULT 0 CHECK (superseded IN (0, 1)),
    lead_id              BLOB CHECK (length(lead_id) = 16),
    phone                TEXT,
    person               BLOB NOT NULL CHECK (length(person) = 16),
    name                 TEXT NOT NULL,
    custom               TEXT,
    device_id            BLOB,
    from_pool            INTEGER NOT NULL CHECK (from_pool IN (0, 1)),
    content              TEXT,
    override_suppression INTEGER NOT NULL CHECK (override_suppression IN (0, 1)),
    due_at               INTEGER NOT NULL,
    delay                TEXT,
    expires_at           INTEGER NOT NULL,
    held_at              INTEGER,
    -- 1 queued, 2 held, 3 sending, 4 in doubt, 5 sent, 6 failed, 7 unknown, 8 skipped, 9 cancelled.
    state                INTEGER NOT NULL CHECK (state BETWEEN 1 AND 9),
    reason               INTEGER CHECK (reason BETWEEN 1 AND 99),
    detail               TEXT,
    refusal_count        INTEGER NOT NULL DEFAULT 0,
    attempt_id           BLOB CHECK (length(attempt_id) = 16),
    epoch                INTEGER,
    doubt_since_at       INTEGER,
    doubt_cause          TEXT,
    next_check_at        INTEGER,
    not_found_count      INTEGER,
    resend_count         INTEGER,
    delivery             INTEGER CHECK (delivery BETWEEN 1 AND 4),
    delivery_at          INTEGER,
    settled_at           INTEGER,
    created_at           INTEGER NOT NULL,
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
) STRICT;

-- due: the heads of a lane. A queued row is here and nowhere else that begin would have to search.
CREATE INDEX messages_queue ON messages (device_id, priority, scope_id, due_at, id) WHERE state = 1;
-- expire.
CREATE INDEX messages_expiry ON messages (expires_at, id) WHERE state = 1;
-- pool: queued rows without a device, of each campaign the oldest.
CREATE INDEX messages_pool ON messages (scope_id, due_at, id) WHERE state = 1 AND device_id IS NULL;
-- loads, unassign: pool messages that have a device.
CREATE INDEX messages_topped_up ON messages (device_id, id) WHERE state = 1 AND from_pool = 1 AND device_id IS NOT NULL;
-- begin: one message at a time per device. sending, release, leave, fence.
CREATE UNIQUE INDEX messages_sending ON messages (device_id) WHERE state = 3;
-- doubts.
CREATE INDEX messages_doubt ON messages (device_id, next_check_at, id) WHERE state = 4;
-- sweep of a deleted device.
CREATE INDEX messages_held ON messages (device_id, id) WHERE state = 2;
-- sweep and completion of a campaign.
CREATE INDEX messages_open ON messages (scope_id, state, id) WHERE state < 5 AND scope_kind = 1;
-- sweep of a sequence.
CREATE INDEX messages_open_flows ON messages (scope_id, state, id) WHERE state < 5 AND scope_kind = 2;
-- The messages of an enrolment, of one step of it, and the order in which its steps came.
CREATE INDEX messages_flow ON messages (enrolment_id, step_id, round) WHERE enrolment_id IS NOT NULL;
-- The gate of a flow's message: a step that is sent again comes before those after it.
CREATE INDEX messages_resent ON messages (enrolment_id) WHERE state < 5 AND scope_kind = 2 AND round > 0;
-- What waits for such a step, or for its sequence.
CREATE INDEX messages_held_flows ON messages (enrolment_id) WHERE state = 2 AND scope_kind = 2;
-- recent, of a campaign, a sequence and a device.
CREATE INDEX messages_recent_scope ON messages (scope_id, settled_at, id) WHERE state IN (5, 6, 7) AND scope_kind = 1;
CREATE INDEX messages_recent_sequence ON messages (scope_id, settled_at, id) WHERE state IN (5, 6, 7) AND scope_kind = 2;
CREATE INDEX messages_recent_device ON messages (device_id, settled_at, id) WHERE state IN (5, 6, 7);
-- Receipts by recipient, replies.
CREATE INDEX messages_sent_to ON messages (device_id, phone) WHERE state = 5;
-- Lists. Their columns hardly ever change after the insert.
CREATE INDEX messages_user ON messages (user_id, id);
CREATE INDEX messages_scope ON messages (scope_id, id) WHERE scope_kind = 1;
CREATE INDEX messages_sequence ON messages (scope_id, id) WHERE scope_kind = 2;
CREATE INDEX messages_device ON messages (device_id, id) WHERE device_id IS NOT NULL;
CREATE INDEX messages_lead ON messages (lead_id, id) WHERE lead_id IS NOT NULL;
-- suppress, erase, persons_in, the greeting before this one.
CREATE INDEX messages_person ON messages (person, id);

-- Every attempt of every message; a message names its newest.
CREATE TABLE attempts (
    seq                  INTEGER PRIMARY KEY,
    id                   BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    message_id           BLOB NOT NULL REFERENCES messages (id),
    device_id            BLOB NOT NULL,
    epoch                INTEGER NOT NULL,
    -- NULL where it is the text of the id.
    transport_message_id TEXT,
    provider_id          TEXT,
    text                 TEXT NOT NULL,
    greeting             TEXT,
    attempted_at         INTEGER NOT NULL
) STRICT;

CREATE INDEX attempts_message ON attempts (message_id);
-- history, loads.
CREATE INDEX attempts_device ON attempts (device_id, attempted_at);
-- Receipts.
CREATE INDEX attempts_ours ON attempts (device_id, transport_message_id) WHERE transport_message_id IS NOT NULL;
CREATE INDEX attempts_provider ON attempts (device_id, provider_id) WHERE provider_id IS NOT NULL;

-- Numbers of a scope per device; x'' is the pool. Changed in the commit that changes what they count.
CREATE TABLE tallies (
    user_id     BLOB NOT NULL,
    scope_kind  INTEGER NOT NULL,
    scope_id    BLOB NOT NULL,
    device_id   BLOB NOT NULL,
    done        INTEGER NOT NULL CHECK (done >= 0),
    failed      INTEGER NOT NULL CHECK (failed >= 0),
    skipped     INTEGER NOT NULL CHECK (skipped >= 0),
    unknown     INTEGER NOT NULL CHECK (unknown >= 0),
    cancelled   INTEGER NOT NULL CHECK (cancelled >= 0),
    remaining   INTEGER NOT NULL CHECK (remaining >= 0),
    delivered   INTEGER NOT NULL CHECK (delivered >= 0),
    undelivered INTEGER NOT NULL CHECK (undelivered >= 0),
    read        INTEGER NOT NULL CHECK (read >= 0),
    replied     INTEGER NOT NULL CHECK (replied >= 0),
    PRIMARY KEY (user_id, scope_kind, scope_id, device_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX tallies_device ON tallies (device_id);

-- Replies that were taken, so that one delivered twice counts once.
CREATE TABLE replies (
    device_id   BLOB NOT NULL,
    provider_id TEXT NOT NULL,
    -- When it was recorded.
    at          INTEGER NOT NULL,
    PRIMARY KEY (device_id, provider_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX replies_age ON replies (at);
