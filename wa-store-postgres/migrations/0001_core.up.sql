-- Ids are UUIDs, instants milliseconds since 1970 in UTC, enums the numbers that wa-core fixes, JSON is text where nothing is
-- asked of it. (user_id, …) foreign keys make it impossible that a row of one user names another's. Text that is compared or
-- ordered is so by its bytes (COLLATE "C"), as every other store does it.

CREATE TABLE meta (
    one  integer PRIMARY KEY CHECK (one = 1),
    seed bytea NOT NULL CHECK (length(seed) = 32)
);

-- One run of a node. `beat` is compared for equality only; `beat_at` is for people.
CREATE TABLE nodes (
    incarnation uuid PRIMARY KEY,
    name        text NOT NULL,
    beat        bigint NOT NULL DEFAULT 0,
    beat_at     bigint NOT NULL,
    fenced      boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- At most one planner.
CREATE TABLE planner (
    one         integer PRIMARY KEY CHECK (one = 1),
    incarnation uuid NOT NULL REFERENCES nodes (incarnation)
);

CREATE TABLE devices (
    id                   uuid PRIMARY KEY,
    user_id              uuid NOT NULL,
    name                 text NOT NULL,
    name_key             text COLLATE "C" NOT NULL,
    description          text NOT NULL,
    platform             text NOT NULL,
    phone                text,
    jid                  text,
    credential           text,
    base_url             text,
    hook_token           text NOT NULL,
    hook_digest          bytea CHECK (length(hook_digest) = 32),
    link_state           smallint NOT NULL CHECK (link_state BETWEEN 1 AND 8),
    link_reason          text,
    link_at              bigint NOT NULL,
    hold_reason          smallint CHECK (hold_reason BETWEEN 1 AND 99),
    hold_since_at        bigint,
    hold_detail          text,
    restriction_until_at bigint,
    restriction_scope    text,
    delay                text,
    caps                 text,
    on_doubt             smallint NOT NULL CHECK (on_doubt IN (1, 2)),
    last_active_at       bigint,
    created_at           bigint NOT NULL,
    updated_at           bigint NOT NULL,
    deleted_at           bigint,
    version              bigint NOT NULL,
    epoch                bigint NOT NULL DEFAULT 0,
    owner                uuid REFERENCES nodes (incarnation),
    -- Set by DeleteDevice until sweep has moved the last of its messages.
    sweep                boolean NOT NULL DEFAULT false,
    CHECK ((hold_reason IS NULL) = (hold_since_at IS NULL)),
    CHECK ((restriction_until_at IS NULL) = (restriction_scope IS NULL)),
    CHECK ((hook_token = '') = (hook_digest IS NULL)),
    UNIQUE (user_id, id)
) WITH (fillfactor = 70);

CREATE UNIQUE INDEX devices_name ON devices (user_id, name_key) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX devices_hook ON devices (hook_digest) WHERE hook_digest IS NOT NULL AND deleted_at IS NULL;
CREATE INDEX devices_owner ON devices (owner) WHERE owner IS NOT NULL;
CREATE INDEX devices_unowned ON devices (id) WHERE owner IS NULL AND deleted_at IS NULL;
CREATE INDEX devices_sweep ON devices (id) WHERE sweep;

CREATE TABLE leads (
    id                  uuid PRIMARY KEY,
    user_id             uuid NOT NULL,
    device_id           uuid,
    name                text NOT NULL,
    name_key            text COLLATE "C" NOT NULL,
    phone               text COLLATE "C" NOT NULL CHECK (phone ~ '^\+[1-9]'),
    niches              text COLLATE "C" NOT NULL,
    -- How words are spelled, to be shown; NULL when as they are folded. They are found by the folded form alone.
    niches_spelled      text,
    triggers            text NOT NULL,
    tags                text NOT NULL,
    target_status       smallint NOT NULL CHECK (target_status IN (1, 2)),
    journey             text NOT NULL,
    pipeline_status     text NOT NULL,
    custom              text,
    consent_source      text,
    consent_at          bigint,
    last_interaction_at bigint,
    created_at          bigint NOT NULL,
    updated_at          bigint NOT NULL,
    version             bigint NOT NULL,
    -- Whether it gained something by which a sequence may take it, and was not matched since.
    to_match            boolean NOT NULL DEFAULT false,
    CHECK ((consent_source IS NULL) = (consent_at IS NULL)),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) WITH (fillfactor = 85);

-- What makes two leads the same; the number before the device, so that it also finds all leads with a number. The niches are
-- hashed because an entry of an index must be short.
CREATE UNIQUE INDEX leads_identity ON leads
    (user_id, phone, coalesce(device_id, '00000000-0000-0000-0000-000000000000'::uuid), md5(niches));
-- leads_to_match.
CREATE INDEX leads_to_match ON leads (id) WHERE to_match;
CREATE INDEX leads_user ON leads (user_id, id);
CREATE INDEX leads_device ON leads (user_id, device_id, id) WHERE device_id IS NOT NULL;

-- The exact words of a lead: 1 niche, 2 trigger, 3 tag.
CREATE TABLE lead_tokens (
    user_id  uuid NOT NULL,
    kind     smallint NOT NULL CHECK (kind IN (1, 2, 3)),
    token    text COLLATE "C" NOT NULL,
    lead_id  uuid NOT NULL,
    spelling text,
    PRIMARY KEY (user_id, kind, token, lead_id)
);

CREATE TABLE campaigns (
    id           uuid PRIMARY KEY,
    user_id      uuid NOT NULL,
    title_key    text COLLATE "C" NOT NULL,
    device_id    uuid,
    -- What a person writes, as JSON: nothing is asked of it here.
    body         text NOT NULL,
    status       smallint NOT NULL CHECK (status BETWEEN 1 AND 7),
    reason       smallint,
    status_at    bigint NOT NULL,
    scheduled_at bigint,
    -- 0 start, 1 after a lead, 2 after an entry, 3 done.
    cursor_kind  smallint NOT NULL CHECK (cursor_kind BETWEEN 0 AND 3),
    cursor_lead  uuid,
    cursor_entry bigint,
    started_at   bigint,
    resumed_at   bigint,
    paused_at    bigint,
    ended_at     bigint,
    created_at   bigint NOT NULL,
    updated_at   bigint NOT NULL,
    version      bigint NOT NULL,
    -- Set by a change of status until sweep has moved the last of its messages.
    sweep        boolean NOT NULL DEFAULT false,
    CHECK ((cursor_kind = 1) = (cursor_lead IS NOT NULL)),
    CHECK ((cursor_kind = 2) = (cursor_entry IS NOT NULL)),
    UNIQUE (user_id, id),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) WITH (fillfactor = 70);

-- Campaigns that start by themselves: those that wait for a person (reason 3) are left out.
CREATE INDEX campaigns_scheduled ON campaigns (scheduled_at, id) WHERE status = 2 AND reason IS DISTINCT FROM 3;
CREATE INDEX campaigns_running ON campaigns (id) WHERE status = 3;
CREATE INDEX campaigns_sweep ON campaigns (id) WHERE sweep;
CREATE INDEX campaigns_device ON campaigns (user_id, device_id) WHERE device_id IS NOT NULL;

CREATE TABLE campaign_entries (
    campaign_id uuid NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    position    bigint NOT NULL CHECK (position > 0),
    phone       text COLLATE "C" NOT NULL,
    name        text NOT NULL,
    text        text,
    custom      text,
    PRIMARY KEY (campaign_id, position)
);

CREATE INDEX campaign_entries_phone ON campaign_entries (phone);

CREATE TABLE saved_texts (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    name       text NOT NULL,
    name_key   text COLLATE "C" NOT NULL,
    content    text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    version    bigint NOT NULL,
    UNIQUE (user_id, id),
    UNIQUE (user_id, name_key)
);

CREATE TABLE suppressions (
    user_id  uuid NOT NULL,
    person   uuid NOT NULL,
    phone    text,
    reason   smallint NOT NULL CHECK (reason BETWEEN 1 AND 99),
    note     text NOT NULL,
    since_at bigint NOT NULL,
    PRIMARY KEY (user_id, person)
);

CREATE TABLE device_commands (
    id         uuid PRIMARY KEY,
    user_id    uuid NOT NULL,
    device_id  uuid NOT NULL,
    ask        text NOT NULL,
    answer     text NOT NULL,
    answered   boolean NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
);

CREATE INDEX device_commands_waiting ON device_commands (device_id, created_at, id) WHERE NOT answered;
CREATE INDEX device_commands_expiry ON device_commands (expires_at);

CREATE TABLE events (
    id      uuid PRIMARY KEY,
    user_id uuid NOT NULL,
    body    text NOT NULL,
    at      bigint NOT NULL
);

CREATE INDEX events_user ON events (user_id, id);
CREATE INDEX events_age ON events (at);
