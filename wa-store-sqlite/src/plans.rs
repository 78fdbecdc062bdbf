//! SQLite is asked for the plan of every statement, over tables that are large: none may walk a whole table.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};
use wa_core::domain::access::RequestScope;
use wa_core::domain::audience::TargetFilter;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::enrolment::EnrolmentState;
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::domain::sequence::SequenceStatus;
use wa_core::domain::token::Token;
use wa_core::id::{CampaignId, DeviceId, EnrolmentId, LeadId, MessageId, SequenceId, StepId, UserId};
use wa_core::store::{
    CampaignFilter, EnrolmentFilter, LeadFilter, MessageFilter, PageRequest, SequenceFilter, WriteClass,
};
use wa_core::time::Timestamp;

use crate::leads::Wanted;
use crate::{SqliteOptions, SqliteStore};

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
    archive { NEXT, MARK, PAGE, ACQUAINT, NOTE_STARTS, COPY_ATTEMPTS, DELETE_ATTEMPTS, COPY, DELETE, FINISH, VISIBLE, ATTEMPTS, NEWEST_OF_LEADS, PASTS, HAS, ERASE, ERASE_ATTEMPTS }
    begin { DEVICES, MESSAGES, BEGIN, BEGUN, ATTEMPTS, AGAIN }
    campaigns { VISIBLE, BY_ID, DUE, NEXT, EXPANDING, COMPLETE, PERSONS_IN, ENTRIES, ENTRY_COUNT, ONE, INSERT, UPDATE, ADVANCE, EXISTS, HAS_OPEN, HAS_MESSAGES, MARK, DELETE, ERASE_ENTRIES, SAVED, SAVED_PAGE, INSERT_SAVED, UPDATE_SAVED, DELETE_SAVED }
    chats { VISIBLE, DEVICE, PAGE, KEPT_BEFORE, KEPT_AFTER, KEPT_LAST, SENT_BEFORE, SENT_AFTER, SENT_LAST, OWNED, ONE, KNOWN, OURS, OUR_ATTEMPTS, PUT, READ, LEAVE, ERASE_MESSAGES, ERASE, SWEEP_OLD, SWEEP_GONE, SWEEP_EMPTY, SWEEP_LEFT }
    commands { VISIBLE, ONE, WAITING, PRUNE, INSERT, ANSWER, PLACE, EVENTS, NEWEST, PRUNE_EVENTS, PRUNE_REPLIES, SEES_CAMPAIGN, SEES_LEAD }
    commit { OWNER }
    commit_messages { KNOWN, DEVICES, CAMPAIGNS, LEADS, ONE, OPEN_TO, ERASE, ERASE_ATTEMPTS, BY_ATTEMPT, BY_OURS, BY_PROVIDER, SENT_TO, OURS_TO, HEAR }
    devices { VISIBLE, PAGE, BY_HOOK, OWNED, OWNED_BY, USERS, ONE, INSERT, UPDATE, HOOK_TAKEN, MARK }
    enrolments { VISIBLE, BY_ID, MARKED, SETTLED_BY, EARLIER, KNOWN, FOLLOWED_BY, UNCHAIN, STANDS, MOVE, END, OPEN_OF_PERSON, OPEN_OF_LEAD, OPEN_OF_SEQUENCE, SET_DEVICE, STICK, ERASE, STEP_NUMBERS, COUNTS, COUNT_STEPS, COUNT_ENROLMENTS }
    flows { GATES, LATER_BEGUN, MARK, HELD, STOPPED }
    leads { VISIBLE, BY_ID, BY_IDENTITY, NICHES, NICHES_OF_DEVICES, ONE, WITH_PHONE, UPDATE, MARK, MATCHED, TO_MATCH, ADD_TOKENS, REMOVE_TOKENS, DELETE, TOUCH }
    leases { NODE, PUT_SEED, SEED, JOIN, BEAT, NODES, TARGET, OTHERS, DISOWN_ALL, FENCE, END_PLANNER, DISOWN, UNOWNED, UNOWNED_COUNT, CLAIM, RELEASABLE, TAKE_PLAN, PLANNER, FORGET, LEAVE }
    live { SAVE, TO_POOL }
    outbox { HEADS, CHOSEN, SENDING, DOUBTS, POOL, LOADS, HISTORY, ENDS, RECENT_OF_CAMPAIGN, RECENT_OF_SEQUENCE, RECENT_OF_DEVICE, VISIBLE, NEWEST_OF_LEADS, ATTEMPTS, NUMBERS, DEVICE_NUMBERS, DEVICE_OF_USER, CAMPAIGN_OF_USER, COUNT_CAMPAIGN, COUNT_SEQUENCE, COUNT_OTHER, BACKLOG }
    pool { PLANNED, LEFT_OVER, TAKEN, ROOM, FORGET_TAKEN, NOTE_TAKEN, WAITING, SENT_TO, GIVE }
    sequences { VISIBLE, BY_ID, STEPS, BY_ENTRY, MATCHING, NEWEST_STEPS, OF_USER, ONE, INSERT, UPDATE, INSERT_STEPS, CLEAR_ENTRIES, ADD_ENTRIES, MOVE_CURSOR, EXISTS, HAS_OPEN, MARK }
    sessions { VALUES, SCAN, OWNED, DELETE, WIPE, SWEEP }
    settle { MESSAGES, SENT, FITTING, COUNT_SENT, PROVIDER_IDS, SENDING_ON, SENDING_OF_NODE }
    suppressions { AMONG, PAGE, PUT, REMOVE }
    sweep { MARKED_CAMPAIGNS, MARKED_SEQUENCES, MARKED_DEVICES, OF_CAMPAIGN, OF_SEQUENCE, QUEUED_OF_DEVICE, HELD_OF_DEVICE, DOUBTS_OF_DEVICE, FORGET_CAMPAIGN, FORGET_SEQUENCE, FORGET_DEVICE, NEXT_EXPIRY, EXPIRED, ASSIGNABLE, ASSIGN, TOPPED_UP }
    warmth { WARMTH, STRANGERS, PUT_OFF, COLD_ATTEMPTS, ACQUAINTED, TOUCH, FORWARD }
    tallies { ADD, ADD_ALL, CHANGE, ADD_STEP, CHANGE_STEP, ADD_COUNT, LOWER_COUNT }
}

/// What may be walked from end to end: it is short by its nature.
const SHORT: &[&str] = &[
    // Lists that a statement is given, and what it makes of them.
    "VIRTUAL TABLE",
    "CONSTANT ROW",
    "VALUES CLAUSE",
    "SCAN lane ",
    "SCAN head ",
    "SCAN i ",
    "SCAN v ",
    "SCAN (subquery",
    "SCAN q ",
    // Nodes, the planner and the newest version of the schema.
    "SCAN n ",
    "SCAN nodes ",
    "SCAN planner ",
    "SCAN _sqlx_migrations",
    // Indexes that hold only what waits to be done.
    "INDEX campaigns_running",
    "INDEX campaigns_scheduled",
    "INDEX campaigns_sweep",
    "INDEX devices_sweep",
    "INDEX sequences_active",
    "INDEX sequences_matching",
    "INDEX sequences_sweep",
    "INDEX enrolments_marked",
    "INDEX leads_to_match",
    "INDEX devices_unowned",
    "INDEX chats_gone",
    "INDEX imports_running",
];

/// `backlog` counts open rows: it walks the partial indexes that hold them, not the table.
const BACKLOG: [&str; 4] = ["messages_queue", "messages_held", "messages_sending", "messages_doubt"];

async fn walks(connection: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = sqlx::query(sql).fetch_all(connection).await.unwrap();
    let steps = rows.iter().map(|row| row.get::<String, _>("detail"));
    // The step's own name may end the line, so that "SCAN n " must not find "SCAN nothing".
    steps
        .filter(|step| step.starts_with("SCAN") && !SHORT.iter().any(|short| format!("{step} ").contains(short)))
        .collect()
}

/// Ten thousand rows of each large table, so that the planner sees what it will see.
const FILL: &[&str] = &[
    "INSERT INTO nodes (incarnation, name, beat_at) VALUES (randomblob(16), 'a', 0)",
    "INSERT INTO devices (id, user_id, name, name_key, description, platform, hook_token, link_state, link_at, on_doubt,
        created_at, updated_at, version, owner)
    SELECT randomblob(16), unhex('09090909090909090909090909090909'), 'd' || value, 'd' || value, '', 'stub', '', 3, 0, 1, 0,
        0, 1, (SELECT incarnation FROM nodes)
    FROM generate",
    "INSERT INTO campaigns (id, user_id, title_key, body, status, status_at, cursor_kind, created_at, updated_at, version)
    SELECT randomblob(16), unhex('09090909090909090909090909090909'), '', '{}', 3, 0, 3, 0, 0, 1 FROM generate",
    "INSERT INTO sequences (id, user_id, name_key, body, status, status_at, steps_version, cursor_kind, created_at, updated_at,
        version)
    SELECT randomblob(16), unhex('09090909090909090909090909090909'), '', '{}', 2, 0, 1, 3, 0, 0, 1 FROM generate",
    "INSERT INTO enrolments (id, user_id, sequence_id, lead_id, person, root_id, entry_step_id, steps_version, step_id, due_at,
        state, created_at)
    SELECT randomblob(16), user_id, id, randomblob(16), randomblob(16), randomblob(16), randomblob(16), 1, randomblob(16), 0, 1, 0
    FROM sequences",
    "INSERT INTO leads (id, user_id, device_id, name, name_key, phone, niches, triggers, tags, target_status, journey,
        pipeline_status, created_at, updated_at, version)
    SELECT randomblob(16), user_id, id, '', '', '+6012' || (1000000 + rowid_of), '', '', '', 1, '', '', 0, 0, 1
    FROM (SELECT user_id, id, row_number() OVER () AS rowid_of FROM devices)",
    "INSERT INTO lead_tokens (user_id, kind, token, lead_id) SELECT user_id, 1, 'exa', id FROM leads",
    "INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, person, name, device_id, from_pool,
        override_suppression, due_at, expires_at, state, settled_at, created_at)
    SELECT randomblob(16), d.user_id, 1, (SELECT id FROM campaigns LIMIT 1), 2, randomblob(16), 0, randomblob(16), '', d.id, 0,
        0, 0, 0, CASE d.place % 2 WHEN 0 THEN 1 ELSE 5 END, CASE d.place % 2 WHEN 0 THEN NULL ELSE 0 END, 0
    FROM (SELECT user_id, id, row_number() OVER () AS place FROM devices) d",
    "INSERT INTO attempts (id, message_id, device_id, epoch, text, attempted_at)
    SELECT randomblob(16), id, device_id, 1, '', 0 FROM messages",
    "INSERT INTO chats (id, user_id, device_id, person, phone, unread, last_at)
    SELECT id, user_id, id, randomblob(16), '+60123', 0, 0 FROM devices",
    "INSERT INTO chat_messages (chat_id, at, id, device_id, provider_id, author, kind, text)
    SELECT id, 0, id, id, 'a', 1, 1, '' FROM devices",
    "INSERT INTO session_values (device_id, key, value, expires_at) SELECT id, x'01', x'00', 0 FROM devices",
    "INSERT INTO suppressions (user_id, person, reason, note, since_at)
    SELECT unhex('09090909090909090909090909090909'), randomblob(16), 1, '', 0 FROM generate",
];

async fn large() -> SqliteStore {
    let store = SqliteStore::open(SqliteOptions::memory()).await.unwrap();
    let mut tx = store.begin_tx(WriteClass::Bulk).await.unwrap();
    let numbers = "WITH RECURSIVE generate (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM generate LIMIT 10000)";
    for insert in FILL {
        let sql = AssertSqlSafe(format!("{numbers} {insert}"));
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    store
}

#[tokio::test]
async fn no_statement_walks_a_whole_table() {
    let store = large().await;
    let mut reader = store.reader().await.unwrap();
    let mut bad = Vec::new();
    for (file, name, sql) in STATEMENTS {
        let mut walks = walks(&mut reader, sql).await;
        if *name == "BACKLOG" {
            walks.retain(|step| {
                !BACKLOG
                    .iter()
                    .any(|index| step.contains(&format!("COVERING INDEX {index}")))
            });
        }
        bad.extend(walks.into_iter().map(|step| format!("{file}::{name}: {step}")));
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// One row may be folded into the statement; more are a list to be joined with the table.
#[tokio::test]
async fn no_statement_over_given_rows_walks_a_whole_table() {
    let store = large().await;
    let mut reader = store.reader().await.unwrap();
    let changes = [
        &crate::live::SAVES,
        &crate::tallies::CHANGES,
        &crate::tallies::STEP_CHANGES,
        &crate::tallies::COUNTS_LOWERED,
        &crate::enrolments::MOVES,
        &crate::flows::MARKS,
        &crate::leads::ALL_MATCHED,
    ];
    for rows in changes {
        assert_eq!(walks(&mut reader, rows.two()).await, [""; 0], "{}", rows.two());
    }
}

#[tokio::test]
async fn no_list_walks_a_whole_table_whatever_is_asked_of_it() {
    let store = large().await;
    let mut reader = store.reader().await.unwrap();
    let mut bad = Vec::new();
    for sql in lists() {
        let walks = walks(&mut reader, &sql).await;
        bad.extend(walks.into_iter().map(|step| format!("{step}: {sql}")));
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn the_check_sees_a_walk() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = large().await;
        let mut reader = store.reader().await.unwrap();
        let walks = walks(&mut reader, "SELECT id FROM messages m WHERE m.name = ?").await;
        assert_eq!(walks, ["SCAN m"]);
    });
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

/// How many steps SQLite takes for a statement with one parameter.
async fn steps(connection: &mut SqliteConnection, sql: &'static str, parameter: &str) -> usize {
    let steps = Arc::new(AtomicUsize::new(0));
    let count = steps.clone();
    let count_one = move || {
        count.fetch_add(1, Ordering::Relaxed);
        true
    };
    connection
        .lock_handle()
        .await
        .unwrap()
        .set_progress_handler(1, count_one);
    let rows = sqlx::query(sql)
        .bind(parameter.to_owned())
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    assert!(!rows.is_empty());
    connection.lock_handle().await.unwrap().remove_progress_handler();
    steps.load(Ordering::Relaxed)
}

#[tokio::test]
async fn the_heads_of_a_lane_cost_the_same_whatever_is_queued_behind_them() {
    let store = large().await;
    let mut tx = store.begin_tx(WriteClass::Bulk).await.unwrap();
    let lane = "SELECT json_array(json_array(hex(user_id), hex(device_id))) FROM messages WHERE state = 1 ORDER BY seq LIMIT 1";
    let lane: String = sqlx::query_scalar(lane).fetch_one(&mut *tx).await.unwrap();
    let few = steps(&mut tx, crate::outbox::HEADS, &lane).await;
    let queue = "
        UPDATE messages SET device_id = (SELECT device_id FROM messages WHERE state = 1 ORDER BY seq LIMIT 1) WHERE state = 1";
    sqlx::query(queue).execute(&mut *tx).await.unwrap();
    let many = steps(&mut tx, crate::outbox::HEADS, &lane).await;
    assert!(
        many <= few + few / 10,
        "{few} steps with one message, {many} with 5,000"
    );
}
