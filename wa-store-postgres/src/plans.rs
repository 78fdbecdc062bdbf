//! Postgres is asked for the plan of every statement, over tables that are large: none may walk a whole table.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use wa_core::domain::access::RequestScope;
use wa_core::domain::audience::TargetFilter;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::enrolment::EnrolmentState;
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::domain::sequence::SequenceStatus;
use wa_core::domain::token::Token;
use wa_core::id::{CampaignId, DeviceId, EnrolmentId, LeadId, MessageId, SequenceId, StepId, UserId};
use wa_core::store::{CampaignFilter, EnrolmentFilter, LeadFilter, MessageFilter, PageRequest, SequenceFilter};
use wa_core::time::Timestamp;

use crate::PostgresStore;
use crate::leads::Wanted;
use crate::server::Schema;

/// Lists statements by file, and proves that no constant of a file is forgotten.
macro_rules! statements {
    ($($file:ident { $($name:ident),+ $(,)? })+) => {
        const STATEMENTS: &[(&str, &str, &str)] =
            &[$($((stringify!($file), stringify!($name), crate::$file::$name),)+)+];
        const SOURCES: &[(&str, &str)] = &[$((stringify!($file), include_str!(concat!(stringify!($file), ".rs"))),)+];
    };
}

statements! {
    app { USER, BY_LOGIN, USERS, INSERT_USER, UPDATE_USER, USER_EXISTS, INSERT_SESSION, SESSION, EXTEND_SESSION, DELETE_SESSION, DELETE_SESSIONS_OF, PRUNE_SESSIONS, IMPORT, IMPORTS, PUT_IMPORT, REFUSALS, FAIL_RUNNING }
    archive { NEXT, MARK, PAGE, ACQUAINT, MOVE_ATTEMPTS, NOTE_STARTS, FORGET_OUTCOMES, FORGET_LEFT_OVER, MOVE, FINISH, FORGET_LISTS, VISIBLE, ATTEMPTS, NEWEST_OF_LEADS, PASTS, HAS, ERASE, ERASE_ATTEMPTS }
    begin { DEVICES, MESSAGES, BEGIN, BEGIN_MANY, LOCK, LOCK_LANES, AGAIN, SET_ASIDE }
    campaigns { VISIBLE, BY_ID, DUE, NEXT, EXPANDING, COMPLETABLE, COMPLETE, PERSONS_IN, ENTRIES, ENTRY_COUNT, ONE, INSERT, UPDATE, ADVANCE, EXISTS, HAS_OPEN, HAS_MESSAGES, MARK, DELETE, ERASE_ENTRIES, SAVED, SAVED_PAGE, INSERT_SAVED, UPDATE_SAVED, DELETE_SAVED }
    chats { VISIBLE, DEVICE, PAGE, KEPT_BEFORE, KEPT_AFTER, KEPT_LAST, SENT_BEFORE, SENT_AFTER, SENT_LAST, OWNED, ONE, KNOWN, OURS, OUR_ATTEMPTS, PUT, READ, LEAVE, ERASE_MESSAGES, ERASE, SWEEP_OLD, SWEEP_GONE, SWEEP_EMPTY, SWEEP_LEFT }
    commands { VISIBLE, ONE, WAITING, PRUNE, INSERT, ANSWER, PLACE, EVENTS, NEWEST, PRUNE_EVENTS, PRUNE_REPLIES, SEES_CAMPAIGN, SEES_LEAD }
    commit { OWNER, USERS }
    commit_messages { KNOWN, CAMPAIGNS, DEVICES, LEADS, ONE, OPEN_TO, ERASE, ERASE_ATTEMPTS, BY_ATTEMPT, BY_OURS, BY_PROVIDER, SENT_TO, OURS_TO, HEAR }
    devices { VISIBLE, PAGE, BY_HOOK, OWNED, OWNED_BY, USERS, ONE, INSERT, UPDATE, HOOK_TAKEN, MARK }
    enrolments { VISIBLE, BY_ID, MARKED, SETTLED_BY, EARLIER, KNOWN, FOLLOWED_BY, UNCHAIN, STANDS, MOVE, END, OPEN_OF_PERSON, OPEN_OF_LEAD, OPEN_OF_SEQUENCE, SET_DEVICE, STICK, ERASE, STEP_NUMBERS, COUNTS, COUNT_STEPS, COUNT_ENROLMENTS }
    flows { GATES, LATER_BEGUN, MARK, HELD, STOPPED }
    leads { VISIBLE, BY_ID, BY_IDENTITY, NICHES, NICHES_OF_DEVICES, ONE, WITH_PHONE, UPDATE, MARK, MATCHED, TO_MATCH, ADD_TOKENS, REMOVE_TOKENS, DELETE, TOUCH }
    leases { NODE, PUT_SEED, SEED, JOIN, BEAT, NODES, NAME, NAMESAKES, TARGET, OWNED_IDS, FENCE, END_PLANNER, DISOWN, UNOWNED, UNOWNED_COUNT, CLAIM, USERS_OF, RELEASABLE, TAKE_PLAN, PLANNER, FORGET, LEAVE }
    live { SAVE }
    lock { TAKE }
    outbox { HEADS, CHOSEN, SENDING, DOUBTS, POOL, LOADS, HISTORY, ENDS, RECENT_OF_SCOPE, RECENT_OF_DEVICE, VISIBLE, NEWEST_OF_LEADS, ATTEMPTS, NUMBERS, DEVICE_NUMBERS, DEVICE_OF_USER, CAMPAIGN_OF_USER, COUNT_CAMPAIGN, COUNT_SEQUENCE, COUNT_OTHER, BACKLOG }
    places { UNQUEUE, QUEUE, UNPARK, PARK, OCCUPY, NOTE, MARK, LEAVE, TAKE_UP }
    pool { PLANNED, LEFT_OVER, TAKEN, ROOM, FORGET_TAKEN, NOTE_TAKEN, WAITING, SENT_TO, GIVE }
    sequences { VISIBLE, BY_ID, STEPS, BY_ENTRY, MATCHING, NEWEST_STEPS, OF_USER, ONE, INSERT, UPDATE, INSERT_STEPS, CLEAR_ENTRIES, ADD_ENTRIES, MOVE_CURSOR, EXISTS, HAS_MESSAGES, MARK }
    sessions { VALUES, SCAN, OWNED, DELETE, WIPE, SWEEP }
    settle { MESSAGES, SENT, PROVIDER_IDS, SENDING_ON }
    suppressions { AMONG, PAGE, PUT, REMOVE }
    sweep { MARKED_CAMPAIGNS, MARKED_SEQUENCES, MARKED_DEVICES, QUEUED_OF_SCOPE, PARKED_OF_CAMPAIGN, HELD_OF_SEQUENCE, QUEUED_OF_DEVICE, PARKED_OF_DEVICE, FORGET_CAMPAIGN, FORGET_SEQUENCE, FORGET_DEVICE, NEXT_EXPIRY, EXPIRED_USERS, EXPIRED, ASSIGNABLE, ASSIGN, TOPPED_UP }
    warmth { WARMTH, STRANGERS, PUT_OFF, COLD_ATTEMPTS, ACQUAINTED, TOUCH }
    tallies { ADD, ADD_WAITING, CHANGE, ADD_STEP, CHANGE_STEP, ADD_COUNT, LOWER_COUNT }
    name { LIMIT, TAKE, TRY }
    wake { NOTIFY }
}

/// Tables that are short by their nature.
const SHORT_TABLES: &[&str] = &["nodes", "planner", "meta"];

/// Indexes that hold only what waits to be done.
const SHORT_INDEXES: &[&str] = &[
    "campaigns_running",
    "campaigns_scheduled",
    "campaigns_sweep",
    "devices_sweep",
    "sequences_active",
    "sequences_matching",
    "sequences_sweep",
    "enrolments_marked",
    "leads_to_match",
    "devices_unowned",
    "chats_gone",
    "imports_running",
    // expire walks it from the oldest on, and stops at what has not expired.
    "queue_expiry",
];

/// `backlog` counts open rows: it walks the tables that hold them alone.
const BACKLOG: [&str; 3] = ["queue", "parked", "lanes"];

/// What a plan walks from end to end.
fn walks(plan: &Value, found: &mut Vec<String>) {
    let text = |key: &str| plan[key].as_str().unwrap_or_default();
    match text("Node Type") {
        "Seq Scan" if !SHORT_TABLES.contains(&text("Relation Name")) => {
            found.push(format!("Seq Scan {}", text("Relation Name")));
        }
        "Index Scan" | "Index Only Scan" | "Bitmap Index Scan"
            if plan["Index Cond"].is_null() && !SHORT_INDEXES.contains(&text("Index Name")) =>
        {
            // Those of short tables are named after them.
            let short = SHORT_TABLES.iter().any(|table| text("Index Name").starts_with(table));
            if !short {
                found.push(format!("{} {}", text("Node Type"), text("Index Name")));
            }
        }
        _ => {}
    }
    for below in plan["Plans"].as_array().into_iter().flatten() {
        walks(below, found);
    }
}

/// What the plan of a statement walks, as a connection of the store plans it.
async fn walks_of(connection: &mut PgConnection, sql: &str) -> Vec<String> {
    let prepare = AssertSqlSafe(format!("PREPARE asked AS {sql}"));
    if let Err(error) = sqlx::raw_sql(prepare).execute(&mut *connection).await {
        return vec![format!("{error}")];
    }
    let count = "SELECT coalesce(array_length(parameter_types, 1), 0) FROM pg_prepared_statements WHERE name = 'asked'";
    let count: i32 = sqlx::query_scalar(count).fetch_one(&mut *connection).await.unwrap();
    let nulls = vec!["NULL"; usize::try_from(count).unwrap()].join(", ");
    let arguments = if nulls.is_empty() { nulls } else { format!("({nulls})") };
    let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) EXECUTE asked{arguments}"));
    let rows = sqlx::raw_sql(explain).fetch_all(&mut *connection).await.unwrap();
    let plan: Value = serde_json::from_str(rows[0].get_unchecked::<&str, _>(0)).unwrap();
    sqlx::raw_sql("DEALLOCATE asked")
        .execute(&mut *connection)
        .await
        .unwrap();
    let mut found = Vec::new();
    walks(&plan[0]["Plan"], &mut found);
    found
}

/// Ten thousand rows of each large table, so that the planner sees what it will see.
const FILL: &str = "
    INSERT INTO nodes (incarnation, name, beat_at) SELECT gen_random_uuid(), 'a', 0 FROM generate_series(1, 100);
    INSERT INTO devices (id, user_id, name, name_key, description, platform, hook_token, link_state, link_at, on_doubt,
        created_at, updated_at, version, owner)
    SELECT gen_random_uuid(), '09090909-0909-0909-0909-090909090909', 'd' || n, 'd' || n, '', 'stub', '', 3, 0, 1, 0, 0, 1,
        (SELECT incarnation FROM nodes ORDER BY incarnation OFFSET n % 100 LIMIT 1) FROM generate_series(1, 10000) n;
    INSERT INTO campaigns (id, user_id, title_key, body, status, status_at, cursor_kind, created_at, updated_at, version)
    SELECT gen_random_uuid(), '09090909-0909-0909-0909-090909090909', '', '{}', CASE n % 100 WHEN 0 THEN 3 ELSE 5 END, 0, 3, 0,
        0, 1 FROM generate_series(1, 10000) n;
    INSERT INTO sequences (id, user_id, name_key, body, status, status_at, steps_version, cursor_kind, created_at, updated_at,
        version)
    SELECT gen_random_uuid(), '09090909-0909-0909-0909-090909090909', '', '{}', CASE n % 100 WHEN 0 THEN 2 ELSE 3 END, 0, 1, 3, 0,
        0, 1 FROM generate_series(1, 10000) n;
    INSERT INTO enrolments (id, user_id, sequence_id, lead_id, person, root_id, entry_step_id, steps_version, step_id, due_at,
        state, created_at)
    SELECT gen_random_uuid(), user_id, id, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1,
        gen_random_uuid(), 0, 1, 0 FROM sequences;
    INSERT INTO leads (id, user_id, device_id, name, name_key, phone, niches, triggers, tags, target_status, journey,
        pipeline_status, created_at, updated_at, version)
    SELECT gen_random_uuid(), user_id, id, '', '', '+6012' || (1000000 + row_number() OVER ()), '', '', '', 1, '', '', 0, 0, 1
    FROM devices;
    INSERT INTO lead_tokens (user_id, kind, token, lead_id) SELECT user_id, 1, 'exa', id FROM leads;
    INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, person, name, device_id, from_pool,
        override_suppression, due_at, expires_at, state, settled_at, created_at)
    SELECT gen_random_uuid(), d.user_id, 1, (SELECT id FROM campaigns LIMIT 1), 2, gen_random_uuid(), 0, gen_random_uuid(), '',
        d.id, false, false, 0, 0, CASE d.place % 2 WHEN 0 THEN 1 ELSE 5 END, CASE d.place % 2 WHEN 0 THEN NULL ELSE 0 END, 0
    FROM (SELECT user_id, id, row_number() OVER () AS place FROM devices) d;
    INSERT INTO attempts (id, message_id, device_id, epoch, text, attempted_at)
    SELECT gen_random_uuid(), id, device_id, 1, '', 0 FROM messages;
    INSERT INTO suppressions (user_id, person, reason, note, since_at)
    SELECT '09090909-0909-0909-0909-090909090909', gen_random_uuid(), 1, '', 0 FROM generate_series(1, 10000);
    INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, person, name, device_id, from_pool,
        override_suppression, due_at, expires_at, held_at, state, created_at, enrolment_id, step_id, steps_version)
    SELECT gen_random_uuid(), user_id, 2, sequence_id, 1, gen_random_uuid(), 1, person, '',
        (SELECT id FROM devices LIMIT 1), false, false, 0, 0, 0, 2, 0, id, step_id, 1 FROM enrolments;
    INSERT INTO lanes (device_id) SELECT id FROM devices;
    INSERT INTO queue (device_id, priority, scope_id, due_at, message_id, expires_at, from_pool)
    SELECT device_id, priority, scope_id, due_at, id, row_number() OVER (), false FROM messages WHERE state = 1;
    INSERT INTO parked (message_id, device_id, scope_id, state) SELECT id, device_id, scope_id, 2 FROM messages WHERE state = 2;
    INSERT INTO outcomes SELECT id, device_id, scope_id, row_number() OVER (), row_number() OVER () FROM messages WHERE state = 5;
    INSERT INTO left_over SELECT scope_id, id FROM messages;
    INSERT INTO acquaintances SELECT id, gen_random_uuid(), 0 FROM devices;
    INSERT INTO tallies SELECT d.user_id, c.id, d.id, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM (SELECT user_id, id, row_number() OVER () / 100 AS place FROM devices) d
    JOIN (SELECT id, row_number() OVER () AS place FROM campaigns) c USING (place);
    INSERT INTO campaign_taken SELECT (SELECT id FROM campaigns LIMIT 1), id, 0 FROM devices;
    INSERT INTO step_tallies SELECT sequence_id, step_id, gen_random_uuid(), 0, 0, 0, 0, 0, 1, 0, 0, 0, 0 FROM enrolments;
    INSERT INTO enrolment_counts SELECT sequence_id, 1, step_id, gen_random_uuid(), 1, 0, 1 FROM enrolments;
    INSERT INTO sequence_steps SELECT id, 1, '[]' FROM sequences;
    INSERT INTO sequence_entries SELECT user_id, 'exa' || id, id FROM sequences;
    INSERT INTO campaign_entries SELECT id, 1, '+60123456789', '', NULL, NULL FROM campaigns;
    INSERT INTO device_commands SELECT gen_random_uuid(), user_id, id, '', '', false, 0, 0 FROM devices;
    INSERT INTO events SELECT gen_random_uuid(), user_id, '{}', row_number() OVER () FROM devices;
    INSERT INTO chats SELECT id, user_id, id, gen_random_uuid(), row_number() OVER (), 0, false, '+60123' FROM devices;
    INSERT INTO chat_messages SELECT id, row_number() OVER (), id, id, 1, 1, 'a', '' FROM devices;
    INSERT INTO session_values SELECT id, '\\x01', '\\x00', row_number() OVER () FROM devices;
    INSERT INTO replies SELECT id, 'a', row_number() OVER () FROM devices;
    ANALYZE;";

/// The same of the archive; apart, because a statement may take so long and no longer.
const FILL_ARCHIVE: &str = "
    INSERT INTO archived_messages (id, user_id, scope_kind, scope_id, priority, key, round, person, name, device_id, lead_id, from_pool,
        override_suppression, due_at, expires_at, state, settled_at, created_at, refusal_count, superseded)
    SELECT gen_random_uuid(), c.user_id, 1, c.id, 2, gen_random_uuid(), 0, gen_random_uuid(), '', gen_random_uuid(), gen_random_uuid(),
        false, false, 0, 0, 5, 0, 0, 0, false FROM campaigns c;
    INSERT INTO archived_attempts (id, message_id, device_id, epoch, text, attempted_at)
    SELECT gen_random_uuid(), id, device_id, 1, '', 0 FROM archived_messages;
    INSERT INTO lane_pasts SELECT id, 0, 0 FROM devices;
    ANALYZE archived_messages, archived_attempts, lane_pasts;";

/// A store whose tables are large.
async fn large(schema: &Schema) -> PostgresStore {
    let store = PostgresStore::open(schema.options()).await.unwrap();
    let mut reader = store.reader().await.unwrap();
    // Filling them may take longer than any statement of the store, on a busy machine.
    let unlimited = "SET statement_timeout = 0";
    for sql in [unlimited, FILL, FILL_ARCHIVE, "RESET statement_timeout"] {
        sqlx::raw_sql(sql).execute(reader.connection()).await.unwrap();
    }
    store
}

#[tokio::test]
async fn no_statement_walks_a_whole_table() {
    let schema = Schema::new();
    let store = large(&schema).await;
    let mut reader = store.reader().await.unwrap();
    let mut bad = Vec::new();
    let inserts = [
        ("leads", "INSERT", crate::leads::INSERT.as_str()),
        ("commit_messages", "INSERT", crate::commit_messages::INSERT.as_str()),
        ("begin", "ATTEMPTS", crate::begin::ATTEMPTS.as_str()),
    ];
    for (file, name, sql) in STATEMENTS.iter().chain(&inserts) {
        let mut walks = walks_of(reader.connection(), sql).await;
        if *name == "BACKLOG" {
            walks.retain(|step| {
                !BACKLOG
                    .iter()
                    .any(|table| step.split(' ').any(|word| word.starts_with(table)))
            });
        }
        bad.extend(walks.into_iter().map(|step| format!("{file}::{name}: {step}")));
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[tokio::test]
async fn a_look_at_lanes_walks_no_table_that_was_empty_when_it_was_planned() {
    let schema = Schema::new();
    let store = large(&schema).await;
    let mut reader = store.reader().await.unwrap();
    for table in ["attempts", "queue", "leads"] {
        for sql in [format!("DELETE FROM {table}"), format!("VACUUM ANALYZE {table}")] {
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(reader.connection())
                .await
                .unwrap();
        }
    }
    for sql in [crate::outbox::HEADS, crate::outbox::CHOSEN] {
        assert_eq!(walks_of(reader.connection(), sql).await, Vec::<String>::new(), "{sql}");
    }
}

#[tokio::test]
async fn no_list_walks_a_whole_table_whatever_is_asked_of_it() {
    let schema = Schema::new();
    let store = large(&schema).await;
    let mut reader = store.reader().await.unwrap();
    let mut bad = Vec::new();
    for sql in lists().into_iter().collect::<BTreeSet<_>>() {
        let walks = walks_of(reader.connection(), &sql).await;
        bad.extend(walks.into_iter().map(|step| format!("{step}: {sql}")));
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[tokio::test]
async fn the_check_sees_a_walk() {
    let schema = Schema::new();
    let store = large(&schema).await;
    let mut reader = store.reader().await.unwrap();
    reader.connection().ping().await.unwrap();
    let walks = walks_of(reader.connection(), "SELECT id FROM messages m WHERE m.name = $1").await;
    assert_eq!(walks.len(), 1, "{walks:?}");
}

#[test]
fn every_statement_is_checked() {
    for (file, source) in SOURCES {
        for line in source.lines() {
            let Some(rest) = line.split("const ").nth(1) else {
                continue;
            };
            let Some((name, rest)) = rest.split_once(':') else {
                continue;
            };
            if rest.trim_start().starts_with("&str") {
                let listed = STATEMENTS
                    .iter()
                    .any(|(of, constant, _)| (of, *constant) == (file, name));
                assert!(listed, "{file}::{name} is not listed");
            }
        }
    }
}

/// Lists as they are built for every condition alone, for a page within, and for a scope of some devices.
fn lists() -> Vec<String> {
    let user = UserId::MIN;
    let scopes = [
        RequestScope::user(user),
        RequestScope {
            user_id: user,
            devices: Some(vec![DeviceId::MIN]),
        },
    ];
    let mut lists = Vec::new();
    for scope in &scopes {
        for filter in lead_filters() {
            for after in [None, Some(LeadId::MIN)] {
                let wanted = Wanted {
                    user_id: user,
                    filter: &filter,
                    devices: crate::row::device_list(scope),
                    created_until: Some(Timestamp::EPOCH),
                    after,
                };
                lists.push(wanted.rows(10).sql().as_str().to_owned());
                lists.push(wanted.members(10).sql().as_str().to_owned());
                lists.push(wanted.count().sql().as_str().to_owned());
            }
        }
        for filter in message_filters() {
            for page in [PageRequest::first(10), PageRequest::after(MessageId::MIN, 10)] {
                for source in crate::archive::Source::of(&filter) {
                    let statement = crate::outbox::page_statement(*source, scope, &filter, &page);
                    lists.push(statement.sql().as_str().to_owned());
                }
            }
        }
        for filter in enrolment_filters() {
            for page in [PageRequest::first(10), PageRequest::after(EnrolmentId::MIN, 10)] {
                let statement = crate::enrolments::page_statement(scope, &filter, &page);
                lists.push(statement.sql().as_str().to_owned());
            }
        }
        for filter in sequence_filters() {
            for page in [PageRequest::first(10), PageRequest::after(SequenceId::MIN, 10)] {
                let statement = crate::sequences::page_statement(scope, &filter, &page);
                lists.push(statement.sql().as_str().to_owned());
            }
        }
        for filter in campaign_filters() {
            for page in [PageRequest::first(10), PageRequest::after(CampaignId::MIN, 10)] {
                let statement = crate::campaigns::page_statement(scope, &filter, &page);
                lists.push(statement.sql().as_str().to_owned());
            }
        }
    }
    lists
}

fn lead_filters() -> Vec<LeadFilter> {
    let any = LeadFilter::default;
    let token = Token::parse("exa").ok();
    vec![
        any(),
        LeadFilter {
            device_id: Some(DeviceId::MIN),
            ..any()
        },
        LeadFilter {
            without_device: true,
            ..any()
        },
        LeadFilter {
            niche: token.clone(),
            ..any()
        },
        LeadFilter {
            trigger: token.clone(),
            tag: token,
            ..any()
        },
        LeadFilter {
            target: TargetFilter::Customer,
            ..any()
        },
        LeadFilter {
            phone: Phone::from_e164("+60123456789").ok(),
            ..any()
        },
        LeadFilter {
            search: Some("a".to_owned()),
            ..any()
        },
    ]
}

fn message_filters() -> Vec<MessageFilter> {
    let any = MessageFilter::default;
    vec![
        any(),
        MessageFilter {
            scope: Some(MessageScope::Campaign(CampaignId::MIN)),
            ..any()
        },
        MessageFilter {
            scope: Some(MessageScope::Sequence(SequenceId::MIN)),
            step_id: Some(StepId::MIN),
            ..any()
        },
        MessageFilter {
            enrolment_id: Some(EnrolmentId::MIN),
            ..any()
        },
        MessageFilter {
            scope: Some(MessageScope::Direct),
            ..any()
        },
        MessageFilter {
            device_id: Some(DeviceId::MIN),
            ..any()
        },
        MessageFilter {
            lead_id: Some(LeadId::MIN),
            ..any()
        },
        MessageFilter {
            person: PersonKey::from_slice(&[0; 16]),
            ..any()
        },
        MessageFilter {
            states: MessageState::ALL.to_vec(),
            with_superseded: true,
            ..any()
        },
    ]
}

fn enrolment_filters() -> Vec<EnrolmentFilter> {
    let any = EnrolmentFilter::default;
    vec![
        any(),
        EnrolmentFilter {
            sequence_id: Some(SequenceId::MIN),
            ..any()
        },
        EnrolmentFilter {
            lead_id: Some(LeadId::MIN),
            ..any()
        },
        EnrolmentFilter {
            person: PersonKey::from_slice(&[0; 16]),
            states: EnrolmentState::ALL.to_vec(),
            ..any()
        },
    ]
}

fn sequence_filters() -> Vec<SequenceFilter> {
    vec![
        SequenceFilter::default(),
        SequenceFilter {
            statuses: SequenceStatus::ALL.to_vec(),
            search: Some("a".to_owned()),
        },
    ]
}

fn campaign_filters() -> Vec<CampaignFilter> {
    let at = Some(Timestamp::EPOCH);
    vec![
        CampaignFilter::default(),
        CampaignFilter {
            statuses: CampaignStatus::ALL.to_vec(),
            from: at,
            until: at,
            search: Some("a".to_owned()),
        },
    ]
}
