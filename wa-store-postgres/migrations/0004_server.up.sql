CREATE TABLE users (
    id            uuid PRIMARY KEY,
    login         text NOT NULL,
    login_key     text COLLATE "C" NOT NULL UNIQUE,
    name          text NOT NULL,
    role          smallint NOT NULL CHECK (role IN (1, 2)),
    password_hash text NOT NULL,
    active        boolean NOT NULL,
    settings      text NOT NULL,
    created_at    bigint NOT NULL,
    updated_at    bigint NOT NULL,
    version       bigint NOT NULL
);

CREATE TABLE login_sessions (
    token_hash bytea PRIMARY KEY CHECK (length(token_hash) = 32),
    user_id    uuid NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL
);

CREATE INDEX login_sessions_user ON login_sessions (user_id);
CREATE INDEX login_sessions_expiry ON login_sessions (expires_at);

CREATE TABLE imports (
    id          uuid PRIMARY KEY,
    user_id     uuid NOT NULL,
    name        text NOT NULL,
    state       smallint NOT NULL CHECK (state BETWEEN 1 AND 4),
    bytes_read  bigint NOT NULL,
    bytes_total bigint,
    rows        bigint NOT NULL,
    inserted    bigint NOT NULL,
    duplicates  bigint NOT NULL,
    refused     bigint NOT NULL,
    message     text,
    created_at  bigint NOT NULL,
    updated_at  bigint NOT NULL
);

CREATE INDEX imports_user ON imports (user_id, id);
CREATE INDEX imports_running ON imports (id) WHERE state = 1;

CREATE TABLE import_refusals (
    import_id uuid NOT NULL REFERENCES imports (id),
    line      bigint NOT NULL,
    -- The order in which those of one line were put.
    seq       bigint GENERATED ALWAYS AS IDENTITY,
    field     text NOT NULL,
    reason    text NOT NULL,
    PRIMARY KEY (import_id, line, seq)
);
