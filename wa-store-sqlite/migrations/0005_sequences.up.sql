CREATE TABLE sequences (
    id            BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id       BLOB NOT NULL CHECK (length(user_id) = 16),
    name_key      TEXT NOT NULL,
    device_id     BLOB,
    -- What a person writes, as JSON: nothing is asked of it here.
    body          TEXT NOT NULL,
    status        INTEGER NOT NULL CHECK (status BETWEEN 1 AND 4),
    reason        INTEGER,
    status_at     INTEGER NOT NULL,
    -- The newest version of its steps; 0 while it has none.
    steps_version INTEGER NOT NULL CHECK (steps_version >= 0),
    -- 0 start, 1 after a lead, 3 done.
    cursor_kind   INTEGER NOT NULL CHECK (cursor_kind IN (0, 1, 3)),
    cursor_lead   BLOB CHECK (length(cursor_lead) = 16),
    started_at    INTEGER,
    resumed_at    INTEGER,
    paused_at     INTEGER,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    deleted_at    INTEGER,
    version       INTEGER NOT NULL,
    -- Set by a change of status and by the deletion until sweep has moved the last of its messages.
    sweep         INTEGER NOT NULL DEFAULT 0 CHECK (sweep IN (0, 1)),
    CHECK ((cursor_kind = 1) = (cursor_lead IS NOT NULL)),
    UNIQUE (user_id, id),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) STRICT;

-- pool: those that run.
CREATE INDEX sequences_active ON sequences (id) WHERE status = 2 AND deleted_at IS NULL;
-- sequences_matching: those that still look for leads.
CREATE INDEX sequences_matching ON sequences (id) WHERE cursor_kind <> 3 AND status = 2 AND deleted_at IS NULL;
CREATE INDEX sequences_sweep ON sequences (id) WHERE sweep = 1;
CREATE INDEX sequences_device ON sequences (user_id, device_id) WHERE device_id IS NOT NULL;

-- Versions of steps, as JSON. A version never changes.
CREATE TABLE sequence_steps (
    sequence_id BLOB NOT NULL REFERENCES sequences (id),
    version     INTEGER NOT NULL CHECK (version > 0),
    steps       TEXT NOT NULL,
    PRIMARY KEY (sequence_id, version)
) STRICT;

-- By what leads enter a sequence that is not deleted: the triggers of the entry points of its newest steps, and its niche.
CREATE TABLE sequence_entries (
    user_id     BLOB NOT NULL,
    token       TEXT NOT NULL,
    sequence_id BLOB NOT NULL,
    PRIMARY KEY (user_id, token, sequence_id),
    FOREIGN KEY (user_id, sequence_id) REFERENCES sequences (user_id, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX sequence_entries_sequence ON sequence_entries (user_id, sequence_id);

CREATE TABLE enrolments (
    id            BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id       BLOB NOT NULL CHECK (length(user_id) = 16),
    sequence_id   BLOB NOT NULL,
    lead_id       BLOB NOT NULL CHECK (length(lead_id) = 16),
    phone         TEXT,
    person        BLOB NOT NULL CHECK (length(person) = 16),
    device_id     BLOB,
    token         TEXT,
    root_id       BLOB NOT NULL CHECK (length(root_id) = 16),
    entry_step_id BLOB NOT NULL CHECK (length(entry_step_id) = 16),
    steps_version INTEGER NOT NULL CHECK (steps_version > 0),
    step_id       BLOB NOT NULL CHECK (length(step_id) = 16),
    due_at        INTEGER NOT NULL,
    -- 1 open, 2 completed, 3 ended.
    state         INTEGER NOT NULL CHECK (state BETWEEN 1 AND 3),
    reason        INTEGER CHECK (reason BETWEEN 1 AND 99),
    next_id       BLOB CHECK (length(next_id) = 16),
    created_at    INTEGER NOT NULL,
    ended_at      INTEGER,
    -- When its active step was settled, until it is moved on.
    marked_at     INTEGER,
    CHECK ((state = 1) = (ended_at IS NULL)),
    CHECK (state = 1 OR marked_at IS NULL),
    FOREIGN KEY (user_id, sequence_id) REFERENCES sequences (user_id, id),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) STRICT, WITHOUT ROWID;

-- Lists; the parent of messages.
CREATE UNIQUE INDEX enrolments_user ON enrolments (user_id, id);
-- One open enrolment per sequence and person. sweep of a deleted sequence.
CREATE UNIQUE INDEX enrolments_open ON enrolments (sequence_id, person) WHERE state = 1;
-- to_advance.
CREATE INDEX enrolments_marked ON enrolments (marked_at, id) WHERE marked_at IS NOT NULL;
-- Lists; numbers in a span of time.
CREATE INDEX enrolments_sequence ON enrolments (sequence_id, id);
-- Lists; changes of a lead.
CREATE INDEX enrolments_lead ON enrolments (lead_id, id);
-- Lists; re-entry, suppress, erase, replies.
CREATE INDEX enrolments_person ON enrolments (person, id);
-- Enrol: what a refused one was to follow.
CREATE INDEX enrolments_next ON enrolments (next_id) WHERE next_id IS NOT NULL;

-- How many enrolments of a sequence stand alike; x'' is the pool. Changed in the commit that moves them.
CREATE TABLE enrolment_counts (
    sequence_id   BLOB NOT NULL,
    steps_version INTEGER NOT NULL,
    step_id       BLOB NOT NULL,
    device_id     BLOB NOT NULL,
    state         INTEGER NOT NULL,
    -- 0 for none.
    reason        INTEGER NOT NULL,
    count         INTEGER NOT NULL CHECK (count >= 0),
    PRIMARY KEY (sequence_id, steps_version, step_id, device_id, state, reason)
) STRICT, WITHOUT ROWID;

-- Numbers of a step per device; x'' is the pool. Changed in the commit that changes what they count.
CREATE TABLE step_tallies (
    sequence_id BLOB NOT NULL,
    step_id     BLOB NOT NULL,
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
    PRIMARY KEY (sequence_id, step_id, device_id)
) STRICT, WITHOUT ROWID;
