-- Ids are the 16 bytes of a UUID, instants milliseconds since 1970 in UTC, enums the numbers that wa-core fixes, JSON is
-- kept where nothing is asked of it. (user_id, …) foreign keys make it impossible that a row of one user names another's.

CREATE TABLE meta (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    seed BLOB NOT NULL CHECK (length(seed) = 32)
) STRICT;

-- One run of a node. `beat` is compared for equality only; `beat_at` is for people.
CREATE TABLE nodes (
    incarnation BLOB PRIMARY KEY CHECK (length(incarnation) = 16),
    name        TEXT NOT NULL,
    beat        INTEGER NOT NULL DEFAULT 0,
    beat_at     INTEGER NOT NULL,
    fenced      INTEGER NOT NULL DEFAULT 0 CHECK (fenced IN (0, 1))
) STRICT, WITHOUT ROWID;

-- At most one planner.
CREATE TABLE planner (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    incarnation BLOB NOT NULL REFERENCES nodes (incarnation)
) STRICT;

CREATE TABLE devices (
    id                   BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id              BLOB NOT NULL CHECK (length(user_id) = 16),
    name                 TEXT NOT NULL,
    name_key             TEXT NOT NULL,
    description          TEXT NOT NULL,
    platform             TEXT NOT NULL,
    phone                TEXT,
    jid                  TEXT,
    credential           TEXT,
    base_url             TEXT,
    hook_token           TEXT NOT NULL,
    hook_digest          BLOB CHECK (length(hook_digest) = 32),
    link_state           INTEGER NOT NULL CHECK (link_state BETWEEN 1 AND 8),
    link_reason          TEXT,
    link_at              INTEGER NOT NULL,
    hold_reason          INTEGER CHECK (hold_reason BETWEEN 1 AND 99),
    hold_since_at        INTEGER,
    hold_detail          TEXT,
    restriction_until_at INTEGER,
    restriction_scope    TEXT,
    delay                TEXT,
    caps                 TEXT,
    on_doubt             INTEGER NOT NULL CHECK (on_doubt IN (1, 2)),
    last_active_at       INTEGER,
    created_at           INTEGER NOT NULL,
    updated_at           INTEGER NOT NULL,
    deleted_at           INTEGER,
    version              INTEGER NOT NULL,
    epoch                INTEGER NOT NULL DEFAULT 0,
    owner                BLOB REFERENCES nodes (incarnation),
    -- Set by DeleteDevice until sweep has moved the last of its messages.
    sweep                INTEGER NOT NULL DEFAULT 0 CHECK (sweep IN (0, 1)),
    CHECK ((hold_reason IS NULL) = (hold_since_at IS NULL)),
    CHECK ((restriction_until_at IS NULL) = (restriction_scope IS NULL)),
    CHECK ((hook_token = '') = (hook_digest IS NULL)),
    UNIQUE (user_id, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX devices_name ON devices (user_id, name_key) WHERE deleted_at IS NULL;
CREATE INDEX devices_hook ON devices (hook_digest) WHERE hook_digest IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX devices_owner ON devices (owner) WHERE owner IS NOT NULL;
CREATE INDEX devices_unowned ON devices (id) WHERE owner IS NULL AND deleted_at IS NULL;
CREATE INDEX devices_sweep ON devices (id) WHERE sweep = 1;

CREATE TABLE leads (
    id                  BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id             BLOB NOT NULL CHECK (length(user_id) = 16),
    device_id           BLOB,
    name                TEXT NOT NULL,
    name_key            TEXT NOT NULL,
    phone               TEXT NOT NULL CHECK (phone GLOB '+[1-9]*'),
    niches              TEXT NOT NULL,
    triggers            TEXT NOT NULL,
    tags                TEXT NOT NULL,
    target_status       INTEGER NOT NULL CHECK (target_status IN (1, 2)),
    journey             TEXT NOT NULL,
    pipeline_status     TEXT NOT NULL,
    custom              TEXT,
    consent_source      TEXT,
    consent_at          INTEGER,
    last_interaction_at INTEGER,
    created_at          INTEGER NOT NULL,
    updated_at          INTEGER NOT NULL,
    version             INTEGER NOT NULL,
    -- Whether it gained something by which a sequence may take it, and was not matched since.
    to_match            INTEGER NOT NULL DEFAULT 0 CHECK (to_match IN (0, 1)),
    CHECK ((consent_source IS NULL) = (consent_at IS NULL)),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) STRICT;

-- What makes two leads the same; the number before the device, so that it also finds all leads with a number.
CREATE UNIQUE INDEX leads_identity ON leads (user_id, phone, coalesce(device_id, x''), niches);
-- leads_to_match.
CREATE INDEX leads_to_match ON leads (id) WHERE to_match = 1;
CREATE INDEX leads_user ON leads (user_id, id);
CREATE INDEX leads_device ON leads (user_id, device_id, id) WHERE device_id IS NOT NULL;

-- The exact words of a lead: 1 niche, 2 trigger, 3 tag.
CREATE TABLE lead_tokens (
    user_id BLOB NOT NULL,
    kind    INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
    token   TEXT NOT NULL,
    lead_id BLOB NOT NULL,
    PRIMARY KEY (user_id, kind, token, lead_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE campaigns (
    id           BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id      BLOB NOT NULL CHECK (length(user_id) = 16),
    title_key    TEXT NOT NULL,
    device_id    BLOB,
    -- What a person writes, as JSON: nothing is asked of it here.
    body         TEXT NOT NULL,
    status       INTEGER NOT NULL CHECK (status BETWEEN 1 AND 7),
    reason       INTEGER,
    status_at    INTEGER NOT NULL,
    scheduled_at INTEGER,
    -- 0 start, 1 after a lead, 2 after an entry, 3 done.
    cursor_kind  INTEGER NOT NULL CHECK (cursor_kind BETWEEN 0 AND 3),
    cursor_lead  BLOB CHECK (length(cursor_lead) = 16),
    cursor_entry INTEGER,
    started_at   INTEGER,
    resumed_at   INTEGER,
    paused_at    INTEGER,
    ended_at     INTEGER,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    version      INTEGER NOT NULL,
    -- Set by a change of status until sweep has moved the last of its messages.
    sweep        INTEGER NOT NULL DEFAULT 0 CHECK (sweep IN (0, 1)),
    CHECK ((cursor_kind = 1) = (cursor_lead IS NOT NULL)),
    CHECK ((cursor_kind = 2) = (cursor_entry IS NOT NULL)),
    UNIQUE (user_id, id),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) STRICT;

-- Campaigns that start by themselves: those that wait for a person (reason 3) are left out.
CREATE INDEX campaigns_scheduled ON campaigns (scheduled_at, id) WHERE status = 2 AND reason IS NOT 3;
CREATE INDEX campaigns_user ON campaigns (user_id, id);
CREATE INDEX campaigns_running ON campaigns (id) WHERE status = 3;
CREATE INDEX campaigns_sweep ON campaigns (id) WHERE sweep = 1;
CREATE INDEX campaigns_device ON campaigns (user_id, device_id) WHERE device_id IS NOT NULL;

CREATE TABLE campaign_entries (
    campaign_id BLOB NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL CHECK (position > 0),
    phone       TEXT NOT NULL,
    name        TEXT NOT NULL,
    text        TEXT,
    custom      TEXT,
    PRIMARY KEY (campaign_id, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX campaign_entries_phone ON campaign_entries (phone);

CREATE TABLE saved_texts (
    id         BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id    BLOB NOT NULL CHECK (length(user_id) = 16),
    name       TEXT NOT NULL,
    name_key   TEXT NOT NULL,
    content    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    UNIQUE (user_id, id),
    UNIQUE (user_id, name_key)
) STRICT;

CREATE TABLE suppressions (
    user_id  BLOB NOT NULL CHECK (length(user_id) = 16),
    person   BLOB NOT NULL CHECK (length(person) = 16),
    phone    TEXT,
    reason   INTEGER NOT NULL CHECK (reason BETWEEN 1 AND 99),
    note     TEXT NOT NULL,
    since_at INTEGER NOT NULL,
    PRIMARY KEY (user_id, person)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_commands (
    id         BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id    BLOB NOT NULL,
    device_id  BLOB NOT NULL,
    ask        TEXT NOT NULL,
    answer     TEXT NOT NULL,
    answered   INTEGER NOT NULL CHECK (answered IN (0, 1)),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) STRICT;

CREATE INDEX device_commands_waiting ON device_commands (device_id, created_at, id) WHERE answered = 0;
CREATE INDEX device_commands_expiry ON device_commands (expires_at);

CREATE TABLE events (
    id      BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id BLOB NOT NULL CHECK (length(user_id) = 16),
    body    TEXT NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

CREATE INDEX events_user ON events (user_id, id);
CREATE INDEX events_age ON events (at);
