-- How many messages of a campaign one device takes each time that it is triggered; set if and only if its audience is the pool.
ALTER TABLE campaigns ADD COLUMN device_limit INTEGER CHECK (device_limit > 0);

-- What devices had taken of a campaign when it was triggered again. What they took since is their tallies, less this.
CREATE TABLE campaign_taken (
    campaign_id BLOB NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    device_id   BLOB NOT NULL,
    taken       INTEGER NOT NULL CHECK (taken >= 0),
    PRIMARY KEY (campaign_id, device_id)
) STRICT, WITHOUT ROWID;

-- left_over: skipped for the limit of their campaign, and not taken up since.
CREATE INDEX messages_left_over ON messages (scope_id) WHERE state = 8 AND reason = 25 AND superseded = 0;
