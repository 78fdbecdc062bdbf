-- Messages of campaigns that ended long ago, which are only read any more: out of the tables and indexes that sending uses.

-- Since when messages of a campaign go to the archive, and whether the last of them is there.
ALTER TABLE campaigns ADD COLUMN archived_at INTEGER;
ALTER TABLE campaigns ADD COLUMN archived INTEGER NOT NULL DEFAULT 0 CHECK (archived IN (0, 1));

-- archive: what has started and ended.
CREATE INDEX campaigns_to_archive ON campaigns (ended_at, id)
    WHERE status IN (5, 6, 7) AND started_at IS NOT NULL AND archived = 0;

-- No foreign keys: rows come from messages alone, which has them, and what they name is never deleted.
CREATE TABLE archived_messages (
    seq                  INTEGER PRIMARY KEY,
    id                   BLOB NOT NULL UNIQUE,
    user_id              BLOB NOT NULL,
    scope_kind           INTEGER NOT NULL,
    scope_id             BLOB NOT NULL,
    enrolment_id         BLOB,
    step_id              BLOB,
    steps_version        INTEGER,
    priority             INTEGER NOT NULL,
    key                  BLOB NOT NULL,
    round                INTEGER NOT NULL,
    supersedes           BLOB,
    superseded           INTEGER NOT NULL,
    lead_id              BLOB,
    phone                TEXT,
    person               BLOB NOT NULL,
    name                 TEXT NOT NULL,
    custom               TEXT,
    device_id            BLOB,
    from_pool            INTEGER NOT NULL,
    content              TEXT,
    override_suppression INTEGER NOT NULL,
    due_at               INTEGER NOT NULL,
    delay                TEXT,
    expires_at           INTEGER NOT NULL,
    held_at              INTEGER,
    state                INTEGER NOT NULL,
    reason               INTEGER,
    detail               TEXT,
    refusal_count        INTEGER NOT NULL,
    attempt_id           BLOB,
    epoch                INTEGER,
    doubt_since_at       INTEGER,
    doubt_cause          TEXT,
    next_check_at        INTEGER,
    not_found_count      INTEGER,
    resend_count         INTEGER,
    delivery             INTEGER,
    delivery_at          INTEGER,
    settled_at           INTEGER,
    created_at           INTEGER NOT NULL
) STRICT;

-- Lists; count.
CREATE INDEX archived_messages_user ON archived_messages (user_id, id);
CREATE INDEX archived_messages_scope ON archived_messages (scope_id, id);
CREATE INDEX archived_messages_device ON archived_messages (device_id, id) WHERE device_id IS NOT NULL;
CREATE INDEX archived_messages_lead ON archived_messages (lead_id, id) WHERE lead_id IS NOT NULL;
-- Lists; erase.
CREATE INDEX archived_messages_person ON archived_messages (person, id);

-- In the order of the attempts.
CREATE TABLE archived_attempts (
    seq                  INTEGER PRIMARY KEY,
    id                   BLOB NOT NULL,
    message_id           BLOB NOT NULL,
    device_id            BLOB NOT NULL,
    epoch                INTEGER NOT NULL,
    transport_message_id TEXT,
    provider_id          TEXT,
    text                 TEXT NOT NULL,
    greeting             TEXT,
    attempted_at         INTEGER NOT NULL
) STRICT;

CREATE INDEX archived_attempts_message ON archived_attempts (message_id);

-- Of the attempts in the archive, the first of each device that was or may have been sent, from which its warm-up counts, and the last.
CREATE TABLE lane_pasts (
    device_id        BLOB PRIMARY KEY,
    first_attempt_at INTEGER,
    last_attempt_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
