//! Databases of every earlier schema, with what was in them, come up to date and are read as before.

use std::path::Path;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use wa_core::conformance::fixtures::Fixtures;
use wa_core::domain::access::RequestScope;
use wa_core::domain::message::MessageScope;
use wa_core::id::{CampaignId, UserId};
use wa_core::store::{
    CampaignFilter, CampaignStore, Change, ChangeSet, DeviceStore, LeadFilter, LeadStore, LeaseStore, MessageFilter,
    OnDuplicate, OutboxStore, PageRequest, Store, WriteClass,
};
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use crate::folder::Folder;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// The version with which messages came.
const MESSAGES: i64 = 2;

/// What a database tells of its user, as text; messages only where there are any.
async fn told(store: &SqliteStore, user: UserId, campaign: Option<CampaignId>) -> Vec<String> {
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
    }
    told
}

/// The columns of a table that are written: all but those that are made of others.
async fn columns(connection: &mut SqliteConnection, schema: &'static str, table: &str) -> Vec<String> {
    let sql = "SELECT name FROM pragma_table_xinfo(?, ?) WHERE hidden = 0 ORDER BY cid";
    let columns = sqlx::query_scalar(sql)
        .bind(table)
        .bind(schema)
        .fetch_all(connection)
        .await;
    columns.unwrap()
}

async fn open(file: &Path) -> SqliteStore {
    SqliteStore::open(SqliteOptions::file(file)).await.unwrap()
}

#[tokio::test]
async fn every_earlier_schema_comes_up_to_date_with_what_was_in_it() {
    let folder = Folder::new();
    let full = folder.path().join("full.db");
    let store = open(&full).await;
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
    let direct = messages[3].id;
    store
        .commit(ChangeSet::one(Change::InsertMessages(messages)), WriteClass::Api, now)
        .await
        .unwrap();
    let node = rows.incarnation();
    store.join(node, "node", now).await.unwrap();
    let epoch = store.claim(node, 1, now).await.unwrap()[0].epoch;
    let begin = wa_core::store::Begin {
        incarnation: node,
        items: vec![rows.begin_item(user, direct, device.id, epoch)],
        now,
    };
    assert_eq!(store.begin(&begin).await.unwrap(), [wa_core::store::Begun::Yes]);
    let expected = told(&store, user, Some(campaign.id)).await;

    store.close().await;

    let versions = MIGRATIONS
        .iter()
        .filter(|migration| migration.migration_type.is_up_migration());
    for version in versions.map(|migration| migration.version) {
        let old = folder.path().join(format!("{version}.db"));
        // Tables are filled in the order of their names.
        let options = SqliteConnectOptions::new()
            .filename(&old)
            .create_if_missing(true)
            .foreign_keys(false);
        let mut connection = options.connect().await.unwrap();
        MIGRATIONS.run_to(version, &mut connection).await.unwrap();
        sqlx::query("ATTACH ? AS full_one")
            .bind(full.display().to_string())
            .execute(&mut connection)
            .await
            .unwrap();
        let tables =
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND name <> '_sqlx_migrations' ORDER BY name";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.unwrap();
        for table in tables.iter().filter(|table| !table.starts_with("sqlite_")) {
            let there = columns(&mut connection, "full_one", table).await;
            let mut common = columns(&mut connection, "main", table).await;
            common.retain(|column| there.contains(column));
            let columns = common.join(", ");
            let sql = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM full_one.{table}");
            sqlx::raw_sql(AssertSqlSafe(sql))
                .execute(&mut connection)
                .await
                .unwrap();
        }
        connection.close().await.unwrap();
        let store = open(&old).await;
        store.ready().await.unwrap();
        let with_messages = (version >= MESSAGES).then_some(campaign.id);
        let found = told(&store, user, with_messages).await;
        assert_eq!(found, expected[..found.len()], "from version {version}");
        let more = rows.direct_message(user, Some(device.id), rows.fresh_phone());
        let set = ChangeSet::one(Change::InsertMessages(vec![more]));
        store.commit(set, WriteClass::Api, now).await.unwrap();
        store.close().await;
    }
}
