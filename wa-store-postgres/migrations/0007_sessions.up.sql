CREATE TABLE session_values (
    device_id  uuid NOT NULL REFERENCES devices (id),
    key        bytea NOT NULL CHECK (length(key) BETWEEN 1 AND 512),
    value      bytea NOT NULL CHECK (length(value) <= 1048576),
    expires_at bigint,
    PRIMARY KEY (device_id, key)
);

CREATE INDEX session_values_expiry ON session_values (expires_at, device_id, key) WHERE expires_at IS NOT NULL;
