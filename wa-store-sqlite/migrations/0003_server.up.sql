CREATE TABLE users (
    id            BLOB PRIMARY KEY CHECK (length(id) = 16),
    login         TEXT NOT NULL,
    login_key     TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    role          INTEGER NOT NULL CHECK (role IN (1, 2)),
    password_hash TEXT NOT NULL,
    active        INTEGER NOT NULL CHECK (active IN (0, 1)),
    settings      TEXT NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    version       INTEGER NOT NULL
) STRICT;

CREATE TABLE login_sessions (
    token_hash BLOB PRIMARY KEY CHECK (length(token_hash) = 32),
    user_id    BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX login_sessions_user ON login_sessions (user_id);
CREATE INDEX login_sessions_expiry ON login_sessions (expires_at);

CREATE TABLE imports (
    id          BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id     BLOB NOT NULL CHECK (length(user_id) = 16),
    name        TEXT NOT NULL,
    state       INTEGER NOT NULL CHECK (state BETWEEN 1 AND 4),
    bytes_read  INTEGER NOT NULL,
    bytes_total INTEGER,
    rows        INTEGER NOT NULL,
    inserted    INTEGER NOT NULL,
    duplicates  INTEGER NOT NULL,
    refused     INTEGER NOT NULL,
    message     TEXT,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX imports_user ON imports (user_id, id);
CREATE INDEX imports_running ON imports (id) WHERE state = 1;

CREATE TABLE import_refusals (
    import_id BLOB NOT NULL REFERENCES imports (id),
    line      INTEGER NOT NULL,
    field     TEXT NOT NULL,
    reason    TEXT NOT NULL
) STRICT;

CREATE INDEX import_refusals_line ON import_refusals (import_id, line);
