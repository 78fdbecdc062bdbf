INSERT INTO messages (id, user_id, scope_kind, scope_id, enrolment_id, step_id, steps_version, priority, key, round, supersedes,
    superseded, lead_id, phone, person, name, custom, device_id, from_pool, content, override_suppression, due_at, delay, expires_at,
    held_at, state, reason, detail, refusal_count, attempt_id, epoch, doubt_since_at, doubt_cause, next_check_at, not_found_count,
    resend_count, delivery, delivery_at, settled_at, created_at)
SELECT id, user_id, scope_kind, scope_id, enrolment_id, step_id, steps_version, priority, key, round, supersedes,
    superseded, lead_id, phone, person, name, custom, device_id, from_pool, content, override_suppression, due_at, delay, expires_at,
    held_at, state, reason, detail, refusal_count, attempt_id, epoch, doubt_since_at, doubt_cause, next_check_at, not_found_count,
    resend_count, delivery, delivery_at, settled_at, created_at
FROM archived_messages;

INSERT INTO attempts (id, message_id, device_id, epoch, transport_message_id, provider_id, text, greeting, attempted_at)
SELECT id, message_id, device_id, epoch, transport_message_id, provider_id, text, greeting, attempted_at
FROM archived_attempts ORDER BY seq;

DROP TABLE lane_pasts;
DROP TABLE archived_attempts;
DROP TABLE archived_messages;
DROP INDEX campaigns_to_archive;
ALTER TABLE campaigns DROP COLUMN archived;
ALTER TABLE campaigns DROP COLUMN archived_at;
