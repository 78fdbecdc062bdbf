-- Why an account is restricted, and how many new chats it may begin (JSON).
ALTER TABLE devices ADD COLUMN restriction_cause TEXT;
ALTER TABLE devices ADD COLUMN new_chats TEXT;

-- People who wrote to a device, or to whom its own phone wrote: they are no strangers to it.
CREATE TABLE acquaintances (
    device_id BLOB NOT NULL REFERENCES devices (id),
    person    BLOB NOT NULL CHECK (length(person) = 16),
    since_at  INTEGER NOT NULL,
    PRIMARY KEY (device_id, person)
) STRICT, WITHOUT ROWID;
