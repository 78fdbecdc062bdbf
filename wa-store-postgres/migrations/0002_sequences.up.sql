CREATE TABLE sequences (
    id            uuid PRIMARY KEY,
    user_id       uuid NOT NULL,
    name_key      text COLLATE "C" NOT NULL,
    device_id     uuid,
    -- What a person writes, as JSON: nothing is asked of it here.
    body          text NOT NULL,
    status        smallint NOT NULL CHECK (status BETWEEN 1 AND 4),
    reason        smallint,
    status_at     bigint NOT NULL,
    -- The newest version of its steps; 0 while it has none.
    steps_version integer NOT NULL CHECK (steps_version >= 0),
    -- 0 start, 1 after a lead, 3 done.
    cursor_kind   smallint NOT NULL CHECK (cursor_kind IN (0, 1, 3)),
    cursor_lead   uuid,
    started_at    bigint,
    resumed_at    bigint,
    paused_at     bigint,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL,
    deleted_at    bigint,
    version       bigint NOT NULL,
    -- Set by a change of status and by the deletion until sweep has moved the last of its messages.
    sweep         boolean NOT NULL DEFAULT false,
    CHECK ((cursor_kind = 1) = (cursor_lead IS NOT NULL)),
    UNIQUE (user_id, id),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) WITH (fillfactor = 70);

-- pool: those that run.
CREATE INDEX sequences_active ON sequences (id) WHERE status = 2 AND deleted_at IS NULL;
-- sequences_matching: those that still look for leads.
CREATE INDEX sequences_matching ON sequences (id) WHERE cursor_kind <> 3 AND status = 2 AND deleted_at IS NULL;
CREATE INDEX sequences_sweep ON sequences (id) WHERE sweep;
CREATE INDEX sequences_device ON sequences (user_id, device_id) WHERE device_id IS NOT NULL;

-- Versions of steps, as JSON. A version never changes.
CREATE TABLE sequence_steps (
    sequence_id uuid NOT NULL REFERENCES sequences (id),
    version     integer NOT NULL CHECK (version > 0),
    steps       text NOT NULL,
    PRIMARY KEY (sequence_id, version)
);

-- By what leads enter a sequence that is not deleted: the triggers of the entry points of its newest steps, and its niche.
CREATE TABLE sequence_entries (
    user_id     uuid NOT NULL,
    token       text COLLATE "C" NOT NULL,
    sequence_id uuid NOT NULL,
    PRIMARY KEY (user_id, token, sequence_id),
    FOREIGN KEY (user_id, sequence_id) REFERENCES sequences (user_id, id)
);

CREATE INDEX sequence_entries_sequence ON sequence_entries (user_id, sequence_id);

CREATE TABLE enrolments (
    id            uuid PRIMARY KEY,
    user_id       uuid NOT NULL,
    sequence_id   uuid NOT NULL,
    lead_id       uuid NOT NULL,
    phone         text,
    person        uuid NOT NULL,
    device_id     uuid,
    token         text,
    root_id       uuid NOT NULL,
    entry_step_id uuid NOT NULL,
    steps_version integer NOT NULL CHECK (steps_version > 0),
    step_id       uuid NOT NULL,
    due_at        bigint NOT NULL,
    -- 1 open, 2 completed, 3 ended.
    state         smallint NOT NULL CHECK (state BETWEEN 1 AND 3),
    reason        smallint CHECK (reason BETWEEN 1 AND 99),
    next_id       uuid,
    created_at    bigint NOT NULL,
    ended_at      bigint,
    -- When its active step was settled, until it is moved on.
    marked_at     bigint,
    CHECK ((state = 1) = (ended_at IS NULL)),
    CHECK (state = 1 OR marked_at IS NULL),
    FOREIGN KEY (user_id, sequence_id) REFERENCES sequences (user_id, id),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) WITH (fillfactor = 70);

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

-- How many enrolments of a sequence stand alike; a device of noughts is the pool. Changed in the commit that moves them.
CREATE TABLE enrolment_counts (
    sequence_id   uuid NOT NULL,
    steps_version integer NOT NULL,
    step_id       uuid NOT NULL,
    device_id     uuid NOT NULL,
    state         smallint NOT NULL,
    -- 0 for none.
    reason        smallint NOT NULL,
    count         bigint NOT NULL CHECK (count >= 0),
    PRIMARY KEY (sequence_id, steps_version, step_id, device_id, state, reason)
) WITH (fillfactor = 50);

-- Numbers of a step per device; a device of noughts is the pool. Changed in the commit that changes what they count.
CREATE TABLE step_tallies (
    sequence_id uuid NOT NULL,
    step_id     uuid NOT NULL,
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
    PRIMARY KEY (sequence_id, step_id, device_id)
) WITH (fillfactor = 50);
