-- Closed messages of a campaign, with their attempts, evenly over the devices and over the past, a second each; then queued ones.
-- Words with a colon are replaced. Ids are as far apart in time as they would be.
CREATE FUNCTION id_at(at bigint, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(at), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid
$$;

INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, lead_id, phone, person, name, device_id, from_pool,
    override_suppression, due_at, expires_at, state, settled_at, created_at, attempt_id, epoch)
SELECT id_at(at, n), user_id, 1, scope_id, 2, gen_random_uuid(), 0, gen_random_uuid(), '+6012' || lpad((n % 10000000)::text, 7, '0'),
    md5('person' || n % 1000000)::uuid, '', device_id, false, false, at, at, 5, at, at, id_at(at, -n), 1
FROM (
    SELECT n, d.user_id, ':campaign'::uuid AS scope_id, d.ids[1 + (n + n / cardinality(d.ids)) % cardinality(d.ids)] AS device_id,
        :now - (:history - n) * 1000 AS at
    FROM generate_series(1::bigint, :history) n,
        (SELECT user_id, array_agg(id ORDER BY id) AS ids FROM devices GROUP BY user_id) d
) AS closed;

INSERT INTO attempts (id, message_id, device_id, epoch, text, attempted_at)
SELECT attempt_id, id, device_id, 1, 'Hi Ali bin Abu, buy it today', settled_at FROM messages WHERE state = 5 ORDER BY id;

INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, lead_id, phone, person, name, device_id, from_pool,
    override_suppression, due_at, expires_at, state, created_at)
SELECT id_at(:now, n + 1000000000), user_id, 1, scope_id, 2, gen_random_uuid(), 0, gen_random_uuid(), '+6013' || lpad((n % 10000000)::text, 7, '0'),
    md5('person' || n % 1000000)::uuid, '', device_id, false, false, :now, :now + 604800000, 1, :now
FROM (
    SELECT n, d.user_id, ':campaign'::uuid AS scope_id, d.ids[1 + (n + n / cardinality(d.ids)) % cardinality(d.ids)] AS device_id
    FROM generate_series(1::bigint, :open) n,
        (SELECT user_id, array_agg(id ORDER BY id) AS ids FROM devices GROUP BY user_id) d
) AS queued;

INSERT INTO queue (device_id, priority, scope_id, due_at, message_id, expires_at, from_pool)
SELECT device_id, priority, scope_id, due_at, id, expires_at, from_pool FROM messages WHERE state = 1 ORDER BY id;

INSERT INTO outcomes (message_id, device_id, scope_id, settled_at)
SELECT id, device_id, scope_id, settled_at FROM messages WHERE state = 5 ORDER BY id;

INSERT INTO tallies (user_id, scope_kind, scope_id, device_id, done, failed, skipped, unknown, cancelled, remaining, delivered,
    undelivered, read, replied)
SELECT user_id, 1, scope_id, device_id, count(*) FILTER (WHERE state = 5), 0, 0, 0, 0, count(*) FILTER (WHERE state = 1), 0, 0, 0, 0
FROM messages GROUP BY user_id, scope_id, device_id;

DROP FUNCTION id_at (bigint, bigint);
