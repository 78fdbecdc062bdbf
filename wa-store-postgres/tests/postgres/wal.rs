//! How much a message costs the write-ahead log of the server, from the insert to the settlement, and whether its row stays where it is.

use sqlx::Connection;
use wa_core::conformance::fixtures::Fixtures;
use wa_core::store::{
    Begin, Begun, Change, ChangeSet, LeaseStore, OutboxStore, Outcome, Settle, Store, Verdict, WriteClass,
};
use wa_store_postgres::{PostgresOptions, PostgresStore};

use crate::server::Server;

/// Messages, each of another device.
const MESSAGES: usize = 1_000;

/// Bytes per message: enqueue, begin with a text of 200 bytes, settle with the vendor's id, all indexes included and images of
/// whole pages left out.
const WAL_MAX: i64 = 2_800;

/// Of 100 begins and settlements, those that change the row of their message in its place (HOT), without an entry in any index.
const HOT_MIN: i64 = 99;

async fn written(connection: &mut sqlx::PgConnection) -> i64 {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn a_message_costs_the_log_no_more_than_it_is_said_to() {
    let server = Server::own();
    let store = PostgresStore::open(PostgresOptions::url(server.url())).await.unwrap();
    let rows = Fixtures::new(1);
    let (now, user) = (rows.start(), rows.user().id);
    let devices: Vec<_> = (0..MESSAGES).map(|_| rows.device(user)).collect();
    let set = devices.iter().fold(ChangeSet::default(), |set, device| {
        set.and(Change::InsertDevice(Box::new(device.clone())))
    });
    store.commit(set, WriteClass::Bulk, now).await.unwrap();
    let node = rows.incarnation();
    store.join(node, "node", now).await.unwrap();
    let owned = store.claim(node, 1_000, now).await.unwrap();
    assert_eq!(owned.len(), MESSAGES);
    let mut watch = server.connect().await;
    let mut steps = Vec::new();

    let start = written(&mut watch).await;
    let messages: Vec<_> = devices
        .iter()
        .map(|device| rows.direct_message(user, Some(device.id), rows.fresh_phone()))
        .collect();
    for page in messages.chunks(500) {
        let set = ChangeSet::one(Change::InsertMessages(page.to_vec()));
        store.commit(set, WriteClass::Bulk, now).await.unwrap();
    }
    steps.push(("enqueue", written(&mut watch).await - start));

    let start = written(&mut watch).await;
    let items: Vec<_> = messages
        .iter()
        .map(|message| {
            let device = message.device_id.unwrap();
            let epoch = owned.iter().find(|owned| owned.device.id == device).unwrap().epoch;
            let mut item = rows.begin_item(user, message.id, device, epoch);
            item.text = "x".repeat(200);
            item
        })
        .collect();
    let begin = Begin {
        incarnation: node,
        items: items.clone(),
        now,
    };
    let begun = store.begin(&begin).await.unwrap();
    assert!(begun.iter().all(|begun| *begun == Begun::Yes));
    steps.push(("begin", written(&mut watch).await - start));

    let start = written(&mut watch).await;
    let outcomes = items.iter().map(|item| Outcome {
        user_id: user,
        device_id: item.device_id,
        epoch: item.epoch,
        message_id: item.message_id,
        attempt_id: item.attempt_id,
        verdict: Verdict::Sent {
            provider_id: Some(item.transport_message_id.clone()),
            delivery: None,
        },
        detail: None,
        advance: None,
    });
    let settle = Settle {
        incarnation: node,
        outcomes: outcomes.collect(),
        now,
    };
    store.settle(&settle).await.unwrap();
    steps.push(("settle", written(&mut watch).await - start));

    let each = i64::try_from(MESSAGES).unwrap();
    let sum: i64 = steps.iter().map(|(_, bytes)| bytes / each).sum();
    for (step, bytes) in &steps {
        println!("{step}: {} bytes per message", bytes / each);
    }
    println!("together: {sum} bytes per message");
    assert!(sum <= WAL_MAX, "{sum} bytes");

    // What a connection wrote is counted when it ends.
    store.close().await;
    let counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'messages'";
    let (changed, in_place): (i64, i64) = loop {
        let counted: (i64, i64) = sqlx::query_as(counts).fetch_one(&mut watch).await.unwrap();
        if counted.0 >= 2 * each {
            break counted;
        }
    };
    watch.close().await.unwrap();
    println!("{in_place} of {changed} changes of messages are in place");
    assert!(in_place * 100 >= changed * HOT_MIN, "{in_place} of {changed}");
}
