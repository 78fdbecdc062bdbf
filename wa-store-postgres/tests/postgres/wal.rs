//! How much a message costs the write-ahead log of the server, from the insert to the settlement, and whether its row stays where it is.

use sqlx::Connection;
use wa_core::conformance::fixtures::Fixtures;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::device::OwnedDevice;
use wa_core::domain::message::Message;
use wa_core::id::{CampaignId, Incarnation, UserId};
use wa_core::store::{
    Begin, Begun, Change, ChangeSet, LeaseStore, OnDuplicate, OutboxStore, Outcome, Settle, Store, Verdict, WriteClass,
};
use wa_store_postgres::{PostgresOptions, PostgresStore};

use crate::server::Server;

/// Messages that are begun and settled together, each of another device.
const MESSAGES: usize = 1_000;
/// Direct messages that come together; those of a campaign come in pages as an engine plans them.
const DIRECT_PAGE: usize = 500;
/// How often the next messages are sent, so that all indexes grow by half at least: their pages split in waves.
const TIMES: i64 = 5;

/// Bytes per message: enqueue, begin with a text of 200 bytes, settle with the vendor's id, all indexes included and images of
/// whole pages left out; of direct messages and of those of a campaign with a lead each. The first message of a device in a scope pays for
/// its numbers too, which are new; of the next ones two of each device come together.
const WAL_MAX: [(&str, [(&str, i64); 2]); 2] = [
    ("first", [("direct", 2_450), ("campaign", 2_800)]),
    ("next", [("direct", 2_200), ("campaign", 2_300)]),
];

/// Of 100 begins and settlements, those that change the row of their message in its place (HOT), without an entry in any index.
const HOT_MIN: i64 = 99;

async fn written(connection: &mut sqlx::PgConnection) -> i64 {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

/// The devices of one user, all of one node.
struct Lanes {
    store: PostgresStore,
    rows: Fixtures,
    user: UserId,
    campaign: CampaignId,
    node: Incarnation,
    owned: Vec<OwnedDevice>,
    watch: sqlx::PgConnection,
}

impl Lanes {
    async fn new(server: &Server) -> Self {
        let store = PostgresStore::open(PostgresOptions::url(server.url())).await.unwrap();
        let rows = Fixtures::new(1);
        let (now, user) = (rows.start(), rows.user().id);
        let set = (0..MESSAGES).fold(ChangeSet::default(), |set, _| {
            set.and(Change::InsertDevice(Box::new(rows.device(user))))
        });
        let mut campaign = rows.campaign(user);
        campaign.status = CampaignStatus::Triggered;
        campaign.started_at = Some(now);
        let set = set.and(Change::InsertCampaign(Box::new(campaign.clone())));
        store.commit(set, WriteClass::Bulk, now).await.unwrap();
        let node = rows.incarnation();
        store.join(node, "node", now).await.unwrap();
        let mut owned = store.claim(node, 1_000, now).await.unwrap();
        owned.sort_by_key(|owned| owned.device.id);
        assert_eq!(owned.len(), MESSAGES);
        let watch = server.connect().await;
        Self {
            store,
            rows,
            user,
            campaign: campaign.id,
            node,
            owned,
            watch,
        }
    }

    /// So many direct messages by each device.
    fn direct(&self, each: usize) -> Vec<Message> {
        let message = |owned: &OwnedDevice| {
            self.rows
                .direct_message(self.user, Some(owned.device.id), self.rows.fresh_phone())
        };
        self.owned.iter().cycle().take(each * MESSAGES).map(message).collect()
    }

    /// So many messages of the campaign by each device, each to a new lead.
    async fn of_campaign(&self, each: usize) -> Vec<Message> {
        let mut set = ChangeSet::default();
        let mut messages = Vec::new();
        for owned in self.owned.iter().cycle().take(each * MESSAGES) {
            let device = Some(owned.device.id);
            let lead = self.rows.lead(self.user, device);
            let mut message = self.rows.campaign_message(self.user, self.campaign, device, lead.phone);
            message.lead_id = Some(lead.id);
            messages.push(message);
            set = set.and(Change::InsertLead {
                lead: Box::new(lead),
                on_duplicate: OnDuplicate::Refuse,
            });
        }
        self.store
            .commit(set, WriteClass::Bulk, self.rows.start())
            .await
            .unwrap();
        messages
    }

    /// Sends messages, one by each device at a time; gives what each step cost per message.
    async fn send(&mut self, messages: Vec<Message>, page: usize) -> [i64; 3] {
        let (user, now) = (self.user, self.rows.start());
        let start = written(&mut self.watch).await;
        for page in messages.chunks(page) {
            let set = ChangeSet::one(Change::InsertMessages(page.to_vec()));
            self.store.commit(set, WriteClass::Bulk, now).await.unwrap();
        }
        let mut costs = [written(&mut self.watch).await - start, 0, 0];
        for messages in messages.chunks(MESSAGES) {
            let before = written(&mut self.watch).await;
            let items: Vec<_> = messages
                .iter()
                .zip(&self.owned)
                .map(|(message, owned)| {
                    let mut item = self.rows.begin_item(user, message.id, owned.device.id, owned.epoch);
                    item.text = "x".repeat(200);
                    item
                })
                .collect();
            let begin = Begin {
                incarnation: self.node,
                items: items.clone(),
                now,
            };
            let begun = self.store.begin(&begin).await.unwrap();
            assert!(begun.iter().all(|begun| *begun == Begun::Yes));
            let begun = written(&mut self.watch).await;

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
                incarnation: self.node,
                outcomes: outcomes.collect(),
                now,
            };
            self.store.settle(&settle).await.unwrap();
            costs[1] += begun - before;
            costs[2] += written(&mut self.watch).await - begun;
        }
        let count = i64::try_from(messages.len()).unwrap();
        costs.map(|bytes| bytes / count)
    }
}

#[tokio::test]
async fn a_message_costs_the_log_no_more_than_it_is_said_to() {
    let server = Server::own();
    let mut lanes = Lanes::new(&server).await;
    let (mut over, mut sent) = (Vec::new(), 0);
    for (round, kinds) in WAL_MAX {
        for (kind, most) in kinds {
            let (times, each) = if round == "first" { (1, 1) } else { (TIMES, 2) };
            let mut costs = [0; 3];
            for _ in 0..times {
                let (messages, page) = match kind {
                    "direct" => (lanes.direct(each), DIRECT_PAGE),
                    _ => (lanes.of_campaign(each).await, lanes.store.bulk_rows() as usize),
                };
                sent += i64::try_from(messages.len()).unwrap();
                let cost = lanes.send(messages, page).await;
                costs.iter_mut().zip(cost).for_each(|(sum, bytes)| *sum += bytes);
            }
            let [enqueue, begin, settle] = costs.map(|bytes| bytes / times);
            let sum = enqueue + begin + settle;
            println!(
                "{round} of a device, {kind}: enqueue {enqueue}, begin {begin}, settle {settle}, together {sum} bytes"
            );
            over.extend((sum > most).then(|| format!("{round}, {kind}: {sum} bytes")));
        }
    }
    assert!(over.is_empty(), "{over:?}");

    // What a connection wrote is counted when it ends.
    lanes.store.close().await;
    let counts = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'messages'";
    let (changed, in_place): (i64, i64) = loop {
        let counted: (i64, i64) = sqlx::query_as(counts).fetch_one(&mut lanes.watch).await.unwrap();
        if counted.0 >= 2 * sent {
            break counted;
        }
    };
    lanes.watch.close().await.unwrap();
    println!("{in_place} of {changed} changes of messages are in place");
    assert!(in_place * 100 >= changed * HOT_MIN, "{in_place} of {changed}");
}
