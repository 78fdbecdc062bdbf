INSERT INTO messages (id, user_id, scope_id, enrolment_id, step_id, key, supersedes, lead_id, person, device_id, attempt_id, due_at,
    expires_at, created_at, held_at, settled_at, delivery_at, epoch, doubt_since_at, next_check_at, steps_version, round, refusal_count,
    scope_kind, priority, state, reason, delivery, not_found_count, resend_count, superseded, from_pool, override_suppression, phone,
    name, custom, content, delay, detail, doubt_cause, provider_id)
SELECT id, user_id, scope_id, enrolment_id, step_id, key, supersedes, lead_id, person, device_id, attempt_id, due_at,
    expires_at, created_at, held_at, settled_at, delivery_at, epoch, doubt_since_at, next_check_at, steps_version, round, refusal_count,
    scope_kind, priority, state, reason, delivery, not_found_count, resend_count, superseded, from_pool, override_suppression, phone,
    name, custom, content, delay, detail, doubt_cause, provider_id
FROM archived_messages;

INSERT INTO outcomes (message_id, device_id, scope_id, settled_at, mark)
SELECT id, CASE WHEN state IN (5, 6, 7) THEN device_id END, CASE WHEN state IN (5, 6, 7) THEN scope_id END,
    CASE WHEN state IN (5, 6, 7) THEN settled_at END, hashtextextended(provider_id, 0)
FROM archived_messages WHERE state IN (5, 6, 7) OR provider_id IS NOT NULL ORDER BY settled_at;

INSERT INTO left_over (campaign_id, message_id)
SELECT scope_id, id FROM archived_messages WHERE state = 8 AND reason = 25 AND NOT superseded;

INSERT INTO attempts (id, message_id, device_id, epoch, attempted_at, transport_message_id, provider_id, greeting, text, earlier_id)
SELECT id, message_id, device_id, epoch, attempted_at, transport_message_id, provider_id, greeting, text, earlier_id
FROM archived_attempts;

DROP TABLE lane_pasts;
DROP TABLE archived_attempts;
DROP TABLE archived_messages;
DROP INDEX campaigns_to_archive;
ALTER TABLE campaigns DROP COLUMN archived, DROP COLUMN archived_at;
