//! Engines' worth of nodes contest the leases of each other and begin with epochs that are stale by then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures::future::join_all;
use wa_core::conformance::fixtures::Fixtures;
use wa_core::domain::access::RequestScope;
use wa_core::domain::device::{Device, Epoch};
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::id::{DeviceId, Incarnation, MessageId};
use wa_core::store::{
    Begin, Begun, Change, ChangeSet, Due, LaneLook, LeaseStore, OutboxStore, Outcome, Settle, Settled, Store,
    StoreErrorKind, Verdict, WriteClass,
};
use wa_store_postgres::PostgresStore;

use crate::server::Schema;

/// How many nodes contest.
const NODES: usize = 24;
/// How often.
const ROUNDS: usize = 15;
/// Devices that they contest.
const DEVICES: usize = 12;

/// What a node of one round did.
struct Node {
    store: PostgresStore,
    rows: Arc<Fixtures>,
    devices: Arc<Vec<Device>>,
    incarnation: Incarnation,
    /// Which attempts were begun, over all rounds.
    begun: Arc<Mutex<BTreeMap<MessageId, usize>>>,
}

impl Node {
    fn device(&self, id: DeviceId) -> &Device {
        self.devices
            .iter()
            .find(|device| device.id == id)
            .expect("one of the stage")
    }

    /// Claims, begins, settles some, is fenced by another node now and then, and goes on with what it knew.
    async fn live(&self, others: &[Incarnation], number: usize) {
        let now = self.rows.start();
        let owned = match self.store.claim(self.incarnation, 2, now).await {
            Ok(owned) => owned,
            Err(error) => {
                assert_eq!(error.kind, StoreErrorKind::Fenced, "{error:?}");
                return;
            }
        };
        let mut epochs: BTreeMap<DeviceId, Epoch> = owned.iter().map(|owned| (owned.device.id, owned.epoch)).collect();
        // Stale epochs of devices that it never had, too.
        for device in self.devices.iter().skip(number % DEVICES).take(2) {
            epochs.entry(device.id).or_insert(Epoch(1));
        }
        for _ in 0..2 {
            let lanes = epochs.keys().map(|id| LaneLook {
                user_id: self.device(*id).user_id,
                device_id: *id,
                served: None,
                served_sequence: None,
            });
            let lanes = lanes.collect();
            let due = self.store.due(&Due { lanes, now }).await.unwrap();
            let heads = due
                .iter()
                .filter_map(|lane| Some((lane.device_id, lane.heads.first()?.id)));
            let items: Vec<_> = heads
                .map(|(device, message)| {
                    let user = self.device(device).user_id;
                    self.rows.begin_item(user, message, device, epochs[&device])
                })
                .collect();
            let begin = Begin {
                incarnation: self.incarnation,
                items: items.clone(),
                now,
            };
            let answers = match self.store.begin(&begin).await {
                Ok(answers) => answers,
                Err(error) => {
                    assert_eq!(error.kind, StoreErrorKind::Fenced, "{error:?}");
                    return;
                }
            };
            let mut outcomes = Vec::new();
            for (item, answer) in items.into_iter().zip(answers) {
                if answer != Begun::Yes {
                    continue;
                }
                *self.begun.lock().unwrap().entry(item.message_id).or_default() += 1;
                outcomes.push(Outcome {
                    user_id: item.user_id,
                    device_id: item.device_id,
                    epoch: item.epoch,
                    message_id: item.message_id,
                    attempt_id: item.attempt_id,
                    verdict: Verdict::Sent {
                        provider_id: None,
                        delivery: None,
                    },
                    detail: None,
                    advance: None,
                });
            }
            // Another's lease is taken between begin and settle.
            let target = others[(number * 7 + 3) % others.len()];
            if number.is_multiple_of(3) && target != self.incarnation {
                let nodes = self.store.nodes().await.unwrap();
                if let Some(seen) = nodes.iter().find(|node| node.incarnation == target) {
                    let fenced = self.store.fence(self.incarnation, target, seen.beat, now).await;
                    if let Err(error) = fenced {
                        let expected = [
                            StoreErrorKind::Fenced,
                            StoreErrorKind::Conflict,
                            StoreErrorKind::NotFound,
                        ];
                        assert!(expected.contains(&error.kind), "{error:?}");
                    }
                }
            }
            let settle = Settle {
                incarnation: self.incarnation,
                outcomes,
                now,
            };
            match self.store.settle(&settle).await {
                Ok(answers) => assert!(
                    answers.iter().all(|answer| !matches!(answer, Settled::NotSending)),
                    "{answers:?}"
                ),
                Err(error) => {
                    assert_eq!(error.kind, StoreErrorKind::Fenced, "{error:?}");
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_contest_leases_begin_no_message_twice_and_see_no_error() {
    let schema = Schema::new();
    let store = PostgresStore::open(schema.options().connections(24)).await.unwrap();
    let rows = Arc::new(Fixtures::new(1));
    let now = rows.start();
    let users = [rows.user().id, rows.user().id, rows.user().id];
    let mut devices = Vec::new();
    let mut set = ChangeSet::default();
    for n in 0..DEVICES {
        let device = rows.device(users[n % 3]);
        set = set.and(Change::InsertDevice(Box::new(device.clone())));
        devices.push(device);
    }
    store.commit(set, WriteClass::Api, now).await.unwrap();
    let devices = Arc::new(devices);
    let begun: Arc<Mutex<BTreeMap<MessageId, usize>>> = Arc::default();
    for round in 0..ROUNDS {
        let messages = devices.iter().flat_map(|device| {
            let rows = &rows;
            (0..2).map(move |_| rows.direct_message(device.user_id, Some(device.id), rows.fresh_phone()))
        });
        let set = ChangeSet::one(Change::InsertMessages(messages.collect()));
        store.commit(set, WriteClass::Api, now).await.unwrap();
        let nodes: Vec<Incarnation> = (0..NODES).map(|_| rows.incarnation()).collect();
        for node in &nodes {
            store.join(*node, "node", now).await.unwrap();
        }
        let nodes = Arc::new(nodes);
        let lives = (0..NODES).map(|number| {
            let node = Node {
                store: store.clone(),
                rows: rows.clone(),
                devices: devices.clone(),
                incarnation: nodes[number],
                begun: begun.clone(),
            };
            let nodes = nodes.clone();
            tokio::spawn(async move { node.live(&nodes, number + round).await })
        });
        for life in join_all(lives).await {
            life.unwrap();
        }
        for node in nodes.iter() {
            store.leave(*node, now).await.unwrap();
        }
    }
    let begun = begun.lock().unwrap().clone();
    assert!(begun.len() > DEVICES, "only {} messages began", begun.len());
    let twice: BTreeSet<_> = begun.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    for user in users {
        let scope = RequestScope::user(user);
        let numbers = store.numbers(&scope, MessageScope::Direct).await.unwrap();
        assert_eq!(numbers, store.count(&scope, MessageScope::Direct).await.unwrap());
        for message in begun.keys() {
            if let Ok(message) = store.message(&scope, *message).await {
                assert!(matches!(message.state, MessageState::Sent | MessageState::InDoubt));
            }
        }
    }
}
