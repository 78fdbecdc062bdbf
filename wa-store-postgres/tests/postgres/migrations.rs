//! Databases of every earlier schema, with what was in them, come up to date and are read as before.

use sqlx::migrate::Migrator;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use wa_core::conformance::fixtures::Fixtures;
use wa_core::domain::access::RequestScope;
use wa_core::domain::device::Epoch;
use wa_core::domain::message::{Attempt, Message, MessageScope, MessageState, Reason};
use wa_core::id::{CampaignId, DeviceId, UserId};
use wa_core::store::{
    Begin, Begun, CampaignFilter, CampaignStore, Change, ChangeSet, DeviceStore, LeadFilter, LeadStore, LeaseStore,
    MessageFilter, OnDuplicate, OutboxStore, Outcome, PageRequest, RecentOf, Settle, Settled, Store, Verdict,
    WriteClass,
};
use wa_core::time::Timestamp;
use wa_core::transport::{MaybeSentCause, TransportMessageId};
use wa_store_postgres::PostgresStore;

use crate::places::check;
use crate::server::{Schema, Server};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The version with which messages came.
const MESSAGES: i64 = 3;

/// The version with which a message, and not its newest attempt, has the vendor's id.
const ATTEMPTS: i64 = 6;

/// From here on messages are found by a hash of their persons.
const PERSONS: i64 = 15;
/// The version with which lanes keep what was sent last.
const TURNS: i64 = 14;

/// What a database tells of its user, as text; messages only where there are any.
async fn told(store: &PostgresStore, user: UserId, campaign: Option<CampaignId>) -> Vec<String> {
    let scope = RequestScope::user(user);
    let devices = store.devices(&scope, &PageRequest::first(100)).await.unwrap().rows;
    let leads = store
        .leads(&scope, &LeadFilter::default(), &PageRequest::first(100))
        .await
        .unwrap();
    let campaigns = store
        .campaigns(&scope, &CampaignFilter::default(), &PageRequest::first(100))
        .await
        .unwrap();
    let mut told = vec![
        format!("{devices:?}"),
        format!("{:?}", leads.rows),
        format!("{:?}", campaigns.rows),
    ];
    if let Some(campaign) = campaign {
        let messages = store
            .messages(&scope, &MessageFilter::default(), &PageRequest::first(100))
            .await
            .unwrap();
        for message in &messages.rows {
            told.push(format!("{:?}", store.attempts(&scope, message.id).await.unwrap()));
        }
        told.push(format!("{:?}", messages.rows));
        let numbers = store.numbers(&scope, MessageScope::Campaign(campaign)).await.unwrap();
        assert_eq!(
            numbers,
            store.count(&scope, MessageScope::Campaign(campaign)).await.unwrap()
        );
        told.push(format!("{numbers:?}"));
        let recent = store.recent(RecentOf::Campaign(campaign), Timestamp::EPOCH, 100);
        told.push(format!("{:?}", recent.await.unwrap()));
        for device in &devices {
            let recent = store.recent(RecentOf::Device(device.id), Timestamp::EPOCH, 100);
            told.push(format!("{:?}", recent.await.unwrap()));
        }
        told.push(format!("{:?}", store.left_over(campaign).await.unwrap()));
        told.push(format!("{:?}", store.backlog().await.unwrap()));
    }
    told
}

/// A message in each state in which one can be from the start and that is not open, and one that is left over of its campaign; the
/// first was sent under an id of the vendor.
fn closed(rows: &Fixtures, user: UserId, campaign: CampaignId, device: DeviceId) -> Vec<Message> {
    use MessageState::{Cancelled, Failed, Sent, Skipped, Unknown};
    let states = [Sent, Failed, Unknown, Skipped, Cancelled];
    let mut messages: Vec<Message> = states
        .into_iter()
        .map(|state| Message {
            state,
            settled_at: Some(rows.start()),
            ..rows.campaign_message(user, campaign, Some(device), rows.fresh_phone())
        })
        .collect();
    messages[3].reason = Some(Reason::DeviceLimit);
    let id = rows.attempt_id();
    messages[0].attempt = Some(Attempt {
        id,
        transport_message_id: TransportMessageId::from_attempt(id),
        provider_id: TransportMessageId::new("vendor-1"),
        device_id: device,
        epoch: Epoch(0),
        text: "Hello".to_owned(),
        greeting: None,
        attempted_at: rows.start(),
    });
    messages
}

/// The columns that a table has in both schemas, as a list; `None` where one of them has no such table.
async fn common_columns(connection: &mut PgConnection, table: &str, schemas: [&str; 2]) -> Option<String> {
    let sql = "
        SELECT string_agg(quote_ident(a.column_name), ', ' ORDER BY a.ordinal_position) FROM information_schema.columns a
        JOIN information_schema.columns b USING (table_name, column_name)
        WHERE a.table_schema = $1 AND b.table_schema = $2 AND table_name = $3 AND a.is_generated = 'NEVER'";
    let columns = sqlx::query_scalar(sql)
        .bind(schemas[0])
        .bind(schemas[1])
        .bind(table)
        .fetch_one(connection)
        .await;
    columns.unwrap()
}

#[tokio::test]
async fn every_earlier_schema_comes_up_to_date_with_what_was_in_it() {
    let full = Schema::new();
    let store = PostgresStore::open(full.options()).await.unwrap();
    let rows = Fixtures::new(1);
    let (now, user) = (rows.start(), rows.user().id);
    let device = rows.device(user);
    let campaign = rows.campaign(user);
    let leads: Vec<_> = (0..3).map(|_| rows.lead(user, Some(device.id))).collect();
    let mut set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
    set = set.and(Change::InsertCampaign(Box::new(campaign.clone())));
    for lead in &leads {
        set = set.and(Change::InsertLead {
            lead: Box::new(lead.clone()),
            on_duplicate: OnDuplicate::Refuse,
        });
    }
    set = set.and(Change::Suppress(rows.suppression(user, rows.fresh_phone())));
    store.commit(set, WriteClass::Api, now).await.unwrap();
    let of_campaign = |_| rows.campaign_message(user, campaign.id, Some(device.id), rows.fresh_phone());
    let mut messages: Vec<_> = (0..3).map(of_campaign).collect();
    messages.push(rows.direct_message(user, Some(device.id), rows.fresh_phone()));
    let (direct, doubtful) = (
        messages[3].id,
        rows.direct_message(user, Some(device.id), rows.fresh_phone()),
    );
    let doubtful_id = doubtful.id;
    messages.push(doubtful);
    messages.push(rows.direct_message(user, Some(device.id), rows.fresh_phone()));
    messages.extend(closed(&rows, user, campaign.id, device.id));
    store
        .commit(ChangeSet::one(Change::InsertMessages(messages)), WriteClass::Api, now)
        .await
        .unwrap();
    let node = rows.incarnation();
    store.join(node, "node", now).await.unwrap();
    let epoch = store.claim(node, 1, now).await.unwrap()[0].epoch;
    for message in [doubtful_id, direct] {
        let item = rows.begin_item(user, message, device.id, epoch);
        let begin = Begin {
            incarnation: node,
            items: vec![item.clone()],
            now,
        };
        assert_eq!(store.begin(&begin).await.unwrap(), [Begun::Yes]);
        if message == doubtful_id {
            let outcome = Outcome {
                user_id: user,
                device_id: device.id,
                epoch,
                message_id: message,
                attempt_id: item.attempt_id,
                verdict: Verdict::InDoubt {
                    cause: MaybeSentCause::Timeout,
                    next_check_at: now,
                    not_found_count: 0,
                },
                detail: None,
                advance: None,
            };
            let settle = Settle {
                incarnation: node,
                outcomes: vec![outcome],
                now,
            };
            let in_doubt = Settled::Yes(MessageState::InDoubt);
            assert_eq!(store.settle(&settle).await.unwrap(), [in_doubt]);
        }
    }
    let expected = told(&store, user, Some(campaign.id)).await;

    let mut connection = Server::shared().connect().await;
    let tables =
        "SELECT tablename::text FROM pg_tables WHERE schemaname = $1 AND tablename <> '_sqlx_migrations' ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(tables)
        .bind(full.name())
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let versions = MIGRATIONS
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration());
    for version in versions.map(|migration| migration.version) {
        let old = Schema::new();
        let name = old.name();
        for sql in [
            format!("CREATE SCHEMA {name}"),
            format!("SET search_path = {name}"),
            // Tables are filled in the order of their names.
            "SET session_replication_role = replica".to_owned(),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        MIGRATIONS.run_to(version, &mut connection).await.unwrap();
        for table in &tables {
            if let Some(columns) = common_columns(&mut connection, table, [full.name(), name]).await {
                let full = full.name();
                let sql = if table == "lanes" && version < TURNS {
                    // There they name what is being sent alone.
                    format!(
                        "INSERT INTO {name}.lanes (device_id, message_id, sending)
                        SELECT l.device_id, m.id, CASE WHEN m.id IS NULL THEN 0 ELSE 1 END
                        FROM {full}.lanes l LEFT JOIN {full}.messages m ON m.id = l.message_id AND m.state = 3"
                    )
                } else {
                    format!(
                        "INSERT INTO {name}.{table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {full}.{table}"
                    )
                };
                sqlx::raw_sql(AssertSqlSafe(sql))
                    .execute(&mut connection)
                    .await
                    .unwrap();
            }
        }
        if (MESSAGES..ATTEMPTS).contains(&version) {
            // There it stands with the attempt.
            let full = full.name();
            let sql = format!(
                "UPDATE {name}.attempts a SET provider_id = m.provider_id FROM {full}.messages m WHERE m.attempt_id = a.id"
            );
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        let store = PostgresStore::open(old.options()).await.unwrap();
        store.ready().await.unwrap();
        let with_messages = (version >= MESSAGES).then_some(campaign.id);
        let found = told(&store, user, with_messages).await;
        assert_eq!(found, expected[..found.len()], "from version {version}");
        let more = rows.direct_message(user, Some(device.id), rows.fresh_phone());
        let set = ChangeSet::one(Change::InsertMessages(vec![more]));
        store.commit(set, WriteClass::Api, now).await.unwrap();
        check(&old).await;
        store.close().await;
        // What messages are found by has statistics, or a plan could go through all of a campaign for each person.
        let known = "SELECT count(*) FROM pg_stats WHERE schemaname = $1 AND tablename = 'messages_person'";
        let known: i64 = sqlx::query_scalar(known)
            .bind(name)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert!(
            !(MESSAGES..PERSONS).contains(&version) || known == 1,
            "from version {version}"
        );
    }

    // The newest step, back and forth.
    store.close().await;
    let path = format!("SET search_path = {}", full.name());
    sqlx::raw_sql(AssertSqlSafe(path))
        .execute(&mut connection)
        .await
        .unwrap();
    MIGRATIONS.undo(&mut connection, TURNS - 1).await.unwrap();
    let store = PostgresStore::open(full.options()).await.unwrap();
    assert_eq!(told(&store, user, Some(campaign.id)).await, expected);
    check(&full).await;
    store.close().await;
    connection.close().await.unwrap();
}
