-- Where messages stand by what their rows say, against where they do stand: what either has and the other has not.
WITH stands AS (
    SELECT 'queue' AS place, message_id,
        concat_ws(' ', device_id, priority, scope_id, due_at, expires_at, from_pool) AS how FROM queue
    UNION ALL
    SELECT 'parked', message_id, concat_ws(' ', state, device_id, scope_id, next_check_at) FROM parked
    UNION ALL
    SELECT 'lanes', l.message_id, l.device_id::text FROM lanes l
    JOIN messages m ON m.id = l.message_id AND m.state = 3 AND m.device_id = l.device_id
    UNION ALL
    SELECT 'outcomes of scopes', message_id, concat_ws(' ', scope_id, settled_at) FROM outcomes
    WHERE scope_id IS NOT NULL AND message_id IS NOT NULL
    UNION ALL
    -- Some messages of a list may be in the archive already.
    SELECT 'outcomes of scopes', u.id, concat_ws(' ', o.scope_id, o.settled_at) FROM outcomes o
    CROSS JOIN LATERAL unnest(o.message_ids) AS u (id) WHERE NOT EXISTS (SELECT 1 FROM archived_messages x WHERE x.id = u.id)
    UNION ALL
    SELECT 'outcomes of devices', message_id, concat_ws(' ', device_id, settled_at) FROM outcomes WHERE device_id IS NOT NULL
    UNION ALL
    SELECT 'left over', message_id, campaign_id::text FROM left_over
), rows AS (
    SELECT 'queue' AS place, id AS message_id, concat_ws(' ', coalesce(device_id, '00000000-0000-0000-0000-000000000000'), priority,
        scope_id, due_at, expires_at, from_pool) AS how
    FROM messages WHERE state = 1
    UNION ALL
    SELECT 'parked', id, concat_ws(' ', state, device_id, scope_id, next_check_at) FROM messages WHERE state IN (2, 4)
    UNION ALL
    SELECT 'lanes', id, device_id::text FROM messages WHERE state = 3
    UNION ALL
    SELECT 'outcomes of scopes', id, concat_ws(' ', scope_id, settled_at) FROM messages WHERE state IN (5, 6, 7) AND scope_kind < 3
    UNION ALL
    -- What was sent is found by its attempt, unless it stands among the outcomes of its device.
    SELECT 'outcomes of devices', m.id, concat_ws(' ', m.device_id, m.settled_at) FROM messages m
    WHERE m.state IN (5, 6, 7) AND m.device_id IS NOT NULL AND (
        m.state <> 5
        OR EXISTS (SELECT 1 FROM outcomes o WHERE o.message_id = m.id AND o.device_id IS NOT NULL)
        OR NOT EXISTS (
            SELECT 1 FROM attempts a
            WHERE a.id = m.attempt_id AND a.device_id = m.device_id AND m.settled_at - a.attempted_at < 86400000
        )
    )
    UNION ALL
    SELECT 'left over', id, scope_id::text FROM messages
    WHERE scope_kind = 1 AND state = 8 AND reason = 25 AND NOT superseded
)
SELECT 'stands: ' || concat_ws(' ', e.place, e.message_id, e.how)
FROM (SELECT * FROM stands EXCEPT ALL SELECT * FROM rows) AS e
UNION ALL
SELECT 'should: ' || concat_ws(' ', e.place, e.message_id, e.how)
FROM (SELECT * FROM rows EXCEPT ALL SELECT * FROM stands) AS e
UNION ALL
SELECT 'unmarked: ' || m.id FROM messages m
WHERE m.provider_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.message_id = m.id AND o.mark = hashtextextended(m.provider_id, 0))
UNION ALL
SELECT 'list of what is archived: ' || o.scope_id FROM outcomes o JOIN campaigns c ON c.id = o.scope_id WHERE c.archived
UNION ALL
SELECT 'no lane: ' || d.id FROM devices d WHERE NOT EXISTS (SELECT 1 FROM lanes l WHERE l.device_id = d.id)
