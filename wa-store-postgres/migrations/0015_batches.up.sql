-- What a message of a campaign costs the log, and an enqueue the processor. Statements of earlier versions do not fit these tables: nodes
-- that run them are stopped before.

LOCK TABLE messages, outcomes IN ACCESS EXCLUSIVE MODE;

-- Messages of one scope that were settled together have one row, in which they are listed; a hundred of them at most, so that it
-- stays with the others of its page.
ALTER TABLE outcomes ADD COLUMN message_ids uuid[],
    ALTER COLUMN message_id DROP NOT NULL,
    ADD CHECK ((message_id IS NULL) <> (message_ids IS NULL));

-- Persons by a hash, which is half as long and no less in disorder than they are.
DROP INDEX messages_person;
CREATE INDEX messages_person ON messages (uuid_hash_extended(person, 0));

-- The scope tells both. That a campaign is one of the user is asked once for all rows of a statement, where a foreign key asks for each; that
-- a sequence is that of the enrolment, which is one of the user, for each.
ALTER TABLE messages DROP COLUMN campaign_id, DROP COLUMN sequence_id;

CREATE FUNCTION messages_have_scopes() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM (SELECT DISTINCT a.user_id, a.scope_id FROM added a WHERE a.scope_kind = 1) AS n
        WHERE (SELECT c.user_id FROM campaigns c WHERE c.id = n.scope_id) IS DISTINCT FROM n.user_id
    ) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a message is of a campaign that its user does not have';
    END IF;
    IF EXISTS (
        SELECT 1 FROM added a
        WHERE a.scope_kind = 2 AND (SELECT e.sequence_id FROM enrolments e WHERE e.id = a.enrolment_id) IS DISTINCT FROM a.scope_id
    ) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a message is of another sequence than its enrolment';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER messages_added AFTER INSERT ON messages REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION messages_have_scopes();

CREATE FUNCTION message_has_scope() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF new.scope_kind = 1 AND (SELECT c.user_id FROM campaigns c WHERE c.id = new.scope_id) IS DISTINCT FROM new.user_id THEN
        RAISE foreign_key_violation USING MESSAGE = 'a message is of a campaign that its user does not have';
    END IF;
    IF new.scope_kind = 2 AND (SELECT e.sequence_id FROM enrolments e WHERE e.id = new.enrolment_id) IS DISTINCT FROM new.scope_id THEN
        RAISE foreign_key_violation USING MESSAGE = 'a message is of another sequence than its enrolment';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER messages_moved AFTER UPDATE OF user_id, scope_kind, scope_id, enrolment_id ON messages
    FOR EACH ROW WHEN (new.scope_kind < 3) EXECUTE FUNCTION message_has_scope();

CREATE FUNCTION campaign_has_no_messages() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF (SELECT true FROM messages m WHERE m.scope_kind = 1 AND m.scope_id = old.id LIMIT 1) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a campaign has messages';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER campaigns_deleted AFTER DELETE ON campaigns FOR EACH ROW EXECUTE FUNCTION campaign_has_no_messages();

-- The new index has no statistics, and nobody would notice: Postgres would think that each person has a two hundredth of all messages.
ANALYZE messages;
