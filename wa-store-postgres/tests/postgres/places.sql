-- Where messages stand by what their rows say, against where they do stand: what either has and the other has not.
WITH stands AS (
    SELECT 'queue' AS place, message_id,
        concat_ws(' ', device_id, priority, scope_id, due_at, expires_at, from_pool) AS how FROM queue
    UNION ALL
    SELECT 'parked', message_id, concat_ws(' ', state, device_id, scope_id, next_check_at) FROM parked
    UNION ALL
    SELECT 'lanes', message_id, device_id::text FROM lanes WHERE sending = 1
    UNION ALL
    SELECT 'outcomes', message_id, concat_ws(' ', device_id, scope_id, settled_at) FROM outcomes WHERE settled_at IS NOT NULL
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
    SELECT 'outcomes', id, concat_ws(' ', device_id, CASE WHEN scope_kind < 3 THEN scope_id END, settled_at)
    FROM messages WHERE state IN (5, 6, 7)
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
SELECT 'no lane: ' || d.id FROM devices d WHERE NOT EXISTS (SELECT 1 FROM lanes l WHERE l.device_id = d.id)
