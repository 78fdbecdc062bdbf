-- Chats of linked devices: what people wrote and what the devices' own phones wrote. What the engine sent is in the outbox alone.
CREATE TABLE chats (
    id        BLOB PRIMARY KEY CHECK (length(id) = 16),
    user_id   BLOB NOT NULL CHECK (length(user_id) = 16),
    device_id BLOB NOT NULL,
    person    BLOB NOT NULL CHECK (length(person) = 16),
    phone     TEXT NOT NULL CHECK (phone GLOB '+[1-9]*'),
    name      TEXT,
    unread    INTEGER NOT NULL CHECK (unread >= 0),
    last_at   INTEGER NOT NULL,
    -- Set when its device was deleted, until sweep_chats has taken it.
    gone      INTEGER NOT NULL DEFAULT 0 CHECK (gone IN (0, 1)),
    UNIQUE (device_id, person),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
) STRICT, WITHOUT ROWID;

-- chats, newest first.
CREATE INDEX chats_device ON chats (device_id, last_at, id);
-- ErasePerson.
CREATE INDEX chats_person ON chats (user_id, person);
-- sweep_chats.
CREATE INDEX chats_age ON chats (last_at);
CREATE INDEX chats_gone ON chats (id) WHERE gone = 1;

CREATE TABLE chat_messages (
    chat_id     BLOB NOT NULL REFERENCES chats (id),
    at          INTEGER NOT NULL,
    id          BLOB NOT NULL CHECK (length(id) = 16),
    device_id   BLOB NOT NULL,
    provider_id TEXT NOT NULL,
    -- 1 the person, 2 the device's own phone.
    author      INTEGER NOT NULL CHECK (author IN (1, 2)),
    kind        INTEGER NOT NULL CHECK (kind BETWEEN 1 AND 99),
    text        TEXT NOT NULL,
    -- chat_messages reads it as it lies.
    PRIMARY KEY (chat_id, at, id)
) STRICT, WITHOUT ROWID;

-- A message that is delivered again is there once.
CREATE UNIQUE INDEX chat_messages_provider ON chat_messages (device_id, provider_id);
-- sweep_chats.
CREATE INDEX chat_messages_age ON chat_messages (at);
