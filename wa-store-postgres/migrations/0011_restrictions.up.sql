-- Why an account is restricted, and how many new chats it may begin (JSON).
ALTER TABLE devices ADD COLUMN restriction_cause text, ADD COLUMN new_chats text;

-- People who wrote to a device, or to whom its own phone wrote: they are no strangers to it.
CREATE TABLE acquaintances (
    device_id uuid NOT NULL REFERENCES devices (id),
    person    uuid NOT NULL,
    since_at  bigint NOT NULL,
    PRIMARY KEY (device_id, person)
);
