-- What a message costs the log, and an enqueue the processor. Statements of earlier versions do not fit these tables: nodes that run them
-- are stopped before. Messages are written anew, so it takes about as long as a copy of them and needs the space for one.

-- Nobody may write between the copy and the end: what it wrote would be in one of these tables and not in the others.
LOCK TABLE messages, queue, attempts, lanes, outcomes, tallies IN ACCESS EXCLUSIVE MODE;

-- What a begin, a settlement and a receipt write stands together, so that the log holds that part of the row alone, and before what is long
-- and stays. No foreign key to the device: it would lock its row in the log for every message; whoever writes messages has their users and
-- has looked whose the devices are, and no device is ever deleted.
CREATE TABLE messages_narrow (
    id                   uuid NOT NULL,
    user_id              uuid NOT NULL,
    -- The campaign or sequence, else the user: what messages of one lane take turns by.
    scope_id             uuid NOT NULL,
    key                  uuid NOT NULL,
    person               uuid NOT NULL,
    due_at               bigint NOT NULL,
    expires_at           bigint NOT NULL,
    created_at           bigint NOT NULL,
    round                integer NOT NULL,
    refusal_count        integer NOT NULL DEFAULT 0,
    scope_kind           smallint NOT NULL,
    priority             smallint NOT NULL,
    superseded           boolean NOT NULL DEFAULT false,
    from_pool            boolean NOT NULL,
    override_suppression boolean NOT NULL,
    steps_version        integer,
    device_id            uuid,
    lead_id              uuid,
    campaign_id          uuid GENERATED ALWAYS AS (CASE WHEN scope_kind = 1 THEN scope_id END) STORED,
    sequence_id          uuid GENERATED ALWAYS AS (CASE WHEN scope_kind = 2 THEN scope_id END) STORED,
    -- Which flow it is: set of messages of sequences alone.
    enrolment_id         uuid,
    step_id              uuid,
    supersedes           uuid,
    epoch                bigint,
    attempt_id           uuid,
    settled_at           bigint,
    delivery_at          bigint,
    held_at              bigint,
    doubt_since_at       bigint,
    next_check_at        bigint,
    -- 1 queued, 2 held, 3 sending, 4 in doubt, 5 sent, 6 failed, 7 unknown, 8 skipped, 9 cancelled.
    state                smallint NOT NULL,
    delivery             smallint,
    reason               smallint,
    not_found_count      smallint,
    resend_count         smallint,
    provider_id          text COLLATE "C",
    detail               text,
    doubt_cause          text,
    phone                text COLLATE "C",
    name                 text NOT NULL,
    custom               text,
    content              text,
    delay                text
) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);

INSERT INTO messages_narrow (id, user_id, scope_id, key, person, due_at, expires_at, created_at, round, refusal_count, scope_kind, priority,
    superseded, from_pool, override_suppression, steps_version, device_id, lead_id, enrolment_id, step_id, supersedes, epoch, attempt_id,
    settled_at, delivery_at, held_at, doubt_since_at, next_check_at, state, delivery, reason, not_found_count, resend_count, provider_id,
    detail, doubt_cause, phone, name, custom, content, delay)
SELECT id, user_id, scope_id, key, person, due_at, expires_at, created_at, round, refusal_count, scope_kind, priority,
    superseded, from_pool, override_suppression, steps_version, device_id, lead_id, enrolment_id, step_id, supersedes, epoch, attempt_id,
    settled_at, delivery_at, held_at, doubt_since_at, next_check_at, state, delivery, reason, not_found_count, resend_count, provider_id,
    detail, doubt_cause, phone, name, custom, content, delay
FROM messages ORDER BY id;

DROP TABLE messages;
ALTER TABLE messages_narrow RENAME TO messages;

ALTER TABLE messages ADD PRIMARY KEY (id), ADD UNIQUE (key),
    ADD CHECK (steps_version > 0),
    ADD CHECK (scope_kind BETWEEN 1 AND 5),
    ADD CHECK (priority BETWEEN 0 AND 2),
    ADD CHECK (state BETWEEN 1 AND 9),
    ADD CHECK (reason BETWEEN 1 AND 99),
    ADD CHECK (delivery BETWEEN 1 AND 4),
    ADD CHECK (state <> 3 OR (attempt_id IS NOT NULL AND epoch IS NOT NULL AND device_id IS NOT NULL)),
    ADD CHECK (state <> 4 OR (attempt_id IS NOT NULL AND next_check_at IS NOT NULL AND device_id IS NOT NULL)),
    ADD CHECK (state <> 2 OR held_at IS NOT NULL),
    ADD CHECK (state < 5 OR settled_at IS NOT NULL),
    ADD CHECK (state > 4 OR settled_at IS NULL),
    ADD CHECK ((attempt_id IS NULL) = (epoch IS NULL)),
    ADD CHECK ((scope_kind = 2) = (enrolment_id IS NOT NULL)),
    ADD CHECK ((enrolment_id IS NULL) = (step_id IS NULL) AND (step_id IS NULL) = (steps_version IS NULL)),
    ADD CHECK ((doubt_since_at IS NULL) = (next_check_at IS NULL)),
    ADD FOREIGN KEY (user_id, campaign_id) REFERENCES campaigns (user_id, id),
    ADD FOREIGN KEY (user_id, sequence_id) REFERENCES sequences (user_id, id),
    ADD FOREIGN KEY (user_id, enrolment_id) REFERENCES enrolments (user_id, id);

-- The messages of an enrolment, of one step of it, and the order in which its steps came.
CREATE INDEX messages_flow ON messages (enrolment_id, step_id, round) WHERE enrolment_id IS NOT NULL;
-- Lists. Their columns hardly ever change after the insert.
CREATE INDEX messages_user ON messages (user_id, id);
CREATE INDEX messages_scope ON messages (scope_id, id) WHERE scope_kind < 3;
CREATE INDEX messages_device ON messages (device_id, id) WHERE device_id IS NOT NULL;
-- Lists of what is short for each: put in order when it is read.
CREATE INDEX messages_lead ON messages (lead_id) WHERE lead_id IS NOT NULL;
-- The same; suppress, erase, persons_in, the greeting before this one, receipts by recipient, replies.
CREATE INDEX messages_person ON messages (person);

-- A number needs four bytes: nobody ever has two thousand million messages of a scope on a device. What a settlement changes stands
-- together; the scope names its user.
CREATE TABLE tallies_narrow (
    user_id     uuid NOT NULL,
    scope_id    uuid NOT NULL,
    device_id   uuid NOT NULL,
    scope_kind  smallint NOT NULL,
    remaining   integer NOT NULL,
    done        integer NOT NULL,
    delivered   integer NOT NULL,
    read        integer NOT NULL,
    replied     integer NOT NULL,
    undelivered integer NOT NULL,
    failed      integer NOT NULL,
    skipped     integer NOT NULL,
    unknown     integer NOT NULL,
    cancelled   integer NOT NULL
) WITH (fillfactor = 50);

INSERT INTO tallies_narrow (user_id, scope_id, device_id, scope_kind, remaining, done, delivered, read, replied, undelivered, failed, skipped,
    unknown, cancelled)
SELECT user_id, scope_id, device_id, scope_kind, remaining, done, delivered, read, replied, undelivered, failed, skipped, unknown, cancelled
FROM tallies;

DROP TABLE tallies;
ALTER TABLE tallies_narrow RENAME TO tallies;

ALTER TABLE tallies ADD PRIMARY KEY (scope_id, device_id, scope_kind),
    ADD CHECK (remaining >= 0), ADD CHECK (done >= 0), ADD CHECK (delivered >= 0), ADD CHECK (read >= 0), ADD CHECK (replied >= 0),
    ADD CHECK (undelivered >= 0), ADD CHECK (failed >= 0), ADD CHECK (skipped >= 0), ADD CHECK (unknown >= 0),
    ADD CHECK (cancelled >= 0);
CREATE INDEX tallies_device ON tallies (device_id);

-- A lane names what its device began last, and is free as soon as that is not being sent by it any more: a settlement has no need to write
-- it. Of two begins at once that saw the same turn, the second is refused.
ALTER TABLE lanes DROP COLUMN sending;
ALTER TABLE lanes ADD COLUMN turn integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT lanes_one_at_a_time CHECK (turn >= 0);

-- From now on what was sent and settled as nearly all is has no device among the outcomes: a device's are found by its attempts, which are
-- settled in the order in which they were made. What settled otherwise, and what stands here from before, keeps it.

-- The new tables have no statistics, and nobody would notice: their sizes are known.
ANALYZE messages;
ANALYZE tallies;
