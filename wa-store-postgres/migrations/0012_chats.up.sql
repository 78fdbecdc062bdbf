-- Chats of linked devices: what people wrote and what the devices' own phones wrote. What the engine sent is in the outbox alone.
CREATE TABLE chats (
    id        uuid PRIMARY KEY,
    user_id   uuid NOT NULL,
    device_id uuid NOT NULL,
    person    uuid NOT NULL,
    last_at   bigint NOT NULL,
    unread    bigint NOT NULL CHECK (unread >= 0),
    -- Set when its device was deleted, until sweep_chats has taken it.
    gone      boolean NOT NULL DEFAULT false,
    phone     text COLLATE "C" NOT NULL CHECK (phone ~ '^\+[1-9]'),
    name      text,
    UNIQUE (device_id, person),
    FOREIGN KEY (user_id, device_id) REFERENCES devices (user_id, id)
);

-- chats, newest first.
CREATE INDEX chats_device ON chats (device_id, last_at, id);
-- ErasePerson.
CREATE INDEX chats_person ON chats (user_id, person);
-- sweep_chats.
CREATE INDEX chats_age ON chats (last_at);
CREATE INDEX chats_gone ON chats (id) WHERE gone;

CREATE TABLE chat_messages (
    chat_id     uuid NOT NULL REFERENCES chats (id),
    at          bigint NOT NULL,
    id          uuid NOT NULL,
    device_id   uuid NOT NULL,
    -- 1 the person, 2 the device's own phone.
    author      smallint NOT NULL CHECK (author IN (1, 2)),
    kind        smallint NOT NULL CHECK (kind BETWEEN 1 AND 99),
    provider_id text COLLATE "C" NOT NULL,
    text        text NOT NULL,
    -- chat_messages reads it as it lies.
    PRIMARY KEY (chat_id, at, id)
);

-- A message that is delivered again is there once.
CREATE UNIQUE INDEX chat_messages_provider ON chat_messages (device_id, provider_id);
-- sweep_chats.
CREATE INDEX chat_messages_age ON chat_messages (at);
