//! `kill -9` of the server at random moments of a campaign: nobody gets a message twice, and at a gateway that can be asked
//! everybody gets one.
//!
//! `KILLS=50` kills it 50 times instead of 5, `SEED=n` draws other moments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use wa_core::domain::access::{RequestScope, User, UserSettings};
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::message::{Message, MessageScope, MessageState};
use wa_core::domain::summary::Numbers;
use wa_core::id::{IdSource, UserId};
use wa_core::seed::Seed;
use wa_core::store::{
    AccessStore as _, AppStore, CampaignStore as _, MessageFilter, OutboxStore as _, PAGE_MAX, PageRequest,
};
use wa_core::time::{Clock, SystemClock};
use wa_server_example::demo::stage::{self, Gateways, Scale, Stage};
use wa_server_example::loopback::{FaultShares, GatewayScript, Latency, LoopbackGateway, RunningGateway, Vendor};
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use crate::server_process::{DataDir, ServerProcess};

/// How long the campaign may take after the last kill.
const END_MAX: Duration = Duration::from_secs(180);
/// What one message of a lane takes on average, answer and all.
const PER_MESSAGE: Duration = Duration::from_millis(190);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

/// One run of the loop.
struct Loop {
    kills: u64,
    leads: usize,
    devices: usize,
    faults: FaultShares,
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_moments_lose_nothing_and_double_nothing() {
    let kills = number("KILLS", 5);
    Loop {
        kills,
        leads: 2_000,
        // So many that the campaign outlasts the kills.
        devices: if kills > 10 { 6 } else { 18 },
        faults: FaultShares::NONE,
    }
    .run("kills")
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_and_connections_cut_after_the_message_was_accepted_lose_nothing_and_double_nothing() {
    Loop {
        kills: number("KILLS", 5).div_ceil(2),
        leads: 600,
        devices: 18,
        faults: FaultShares {
            cut_after: 60,
            cut_before: 20,
            server_error: 20,
            ..FaultShares::NONE
        },
    }
    .run("kills and cut connections")
    .await;
}

/// What a campaign is worth, read between two lives of the server.
struct Books {
    store: SqliteStore,
    scope: RequestScope,
    stage: Stage,
}

impl Books {
    fn scope(&self) -> MessageScope {
        MessageScope::Campaign(self.stage.campaign_id)
    }

    async fn messages(&self, states: &[MessageState]) -> Vec<Message> {
        let filter = MessageFilter {
            scope: Some(self.scope()),
            states: states.to_vec(),
            ..MessageFilter::default()
        };
        let mut all = Vec::new();
        let mut page = PageRequest::first(PAGE_MAX);
        loop {
            let read = self.store.messages(&self.scope, &filter, &page).await.unwrap();
            all.extend(read.rows);
            match read.next {
                Some(next) => page = PageRequest::after(next, PAGE_MAX),
                None => return all,
            }
        }
    }

    /// The numbers by tallies, checked against those by rows when nothing runs.
    async fn numbers(&self) -> Numbers {
        let rows = self.store.numbers(&self.scope, self.scope()).await.unwrap();
        rows.into_iter().map(|row| row.numbers).sum()
    }

    async fn counted(&self) -> Numbers {
        let rows = self.store.count(&self.scope, self.scope()).await.unwrap();
        rows.into_iter().map(|row| row.numbers).sum()
    }

    fn is_at(&self, message: &Message, vendor: Vendor) -> bool {
        let devices = &self.stage.devices;
        devices
            .iter()
            .any(|device| Some(device.id) == message.device_id && device.vendor == vendor)
    }
}

async fn gateway(vendor: Vendor, seed: u64, faults: FaultShares) -> RunningGateway {
    let script = GatewayScript::new(vendor, seed)
        .latency(Latency::between(5, 500))
        .faults(faults);
    LoopbackGateway::start(script).await.unwrap()
}

impl Loop {
    async fn run(self, name: &str) {
        let seed = number("SEED", 1);
        let data = DataDir::new();
        let wablas = gateway(Vendor::Wablas, seed, self.faults).await;
        let whacenter = gateway(Vendor::Whacenter, seed, self.faults).await;
        let (user_id, stage) = self.set(&data, &wablas, &whacenter, seed).await;
        for (gateway, vendor) in [(&wablas, Vendor::Wablas), (&whacenter, Vendor::Whacenter)] {
            let devices = stage.devices.iter().filter(|device| device.vendor == vendor);
            let script = GatewayScript::new(vendor, seed)
                .latency(Latency::between(5, 500))
                .faults(self.faults)
                .devices(devices.map(|device| device.at_gateway(None)));
            gateway.set_script(script);
        }
        let settings = [
            ("PACING", "unpaced".to_owned()),
            ("RECONCILE_AFTER", "3s".to_owned()),
            ("RECONCILE_EVERY", "2s".to_owned()),
            ("ERROR_RATE_PERCENT", "0".to_owned()),
            ("GATEWAY_HOSTS", format!("{},{}", wablas.address(), whacenter.address())),
        ];
        let open = async |stage| Books {
            store: SqliteStore::open(SqliteOptions::file(data.database())).await.unwrap(),
            scope: RequestScope::user(user_id),
            stage,
        };

        let mut moments = Seed::from_number(seed).rng(name.as_bytes(), "kill loop");
        let life_mean = PER_MESSAGE * u32::try_from(self.leads / self.devices).unwrap() * 8
            / (10 * u32::try_from(self.kills.max(1)).unwrap());
        let mut stage = stage;
        let (mut open_at_wablas, mut open_at_whacenter) = (0, 0);
        for kill in 0..self.kills {
            let server = ServerProcess::start(&data, &settings).await;
            // The moment is what is tested here, not a wait for something.
            tokio::time::sleep(life_mean.mul_f64(moments.random_range(0.0..2.0))).await;
            server.kill();
            let books = open(stage).await;
            let doubtful = books.messages(&[MessageState::Sending, MessageState::InDoubt]).await;
            let open_at = |vendor| doubtful.iter().filter(|message| books.is_at(message, vendor)).count();
            open_at_wablas += open_at(Vendor::Wablas);
            open_at_whacenter += open_at(Vendor::Whacenter);
            let numbers = books.numbers().await;
            assert_eq!(
                numbers,
                books.counted().await,
                "tallies and rows agree after kill {kill}"
            );
            println!(
                "kill {kill}: done {} remaining {} of {}, sending or in doubt {}",
                numbers.done,
                numbers.remaining,
                numbers.should(),
                doubtful.len()
            );
            books.store.close().await;
            stage = books.stage;
        }

        let server = ServerProcess::start(&data, &settings).await;
        let books = open(stage).await;
        self.wait_for_the_end(&books).await;
        server.kill();

        let numbers = books.numbers().await;
        assert_eq!(numbers, books.counted().await, "tallies and rows agree at the end");
        assert_eq!(numbers.should(), self.leads as u64);
        let at_wablas = per_number(&wablas);
        let at_whacenter = per_number(&whacenter);
        let messages = books.messages(&[]).await;
        let unknown_at = |vendor| {
            let unknown = messages.iter().filter(|message| message.state == MessageState::Unknown);
            unknown.filter(|message| books.is_at(message, vendor)).count()
        };
        let faults: u64 = whacenter.counts().faults.values().sum();
        let doubts_max = open_at_whacenter + usize::try_from(faults).unwrap();
        println!(
            "{name}: {} kills, {numbers:?}\n  wablas: {} messages to {} people, {} were open at the kills, {} unknown\n  whacenter: {} messages to {} people, {} were open at the kills or cut, {} unknown",
            self.kills,
            at_wablas.values().sum::<usize>(),
            at_wablas.len(),
            open_at_wablas,
            unknown_at(Vendor::Wablas),
            at_whacenter.values().sum::<usize>(),
            at_whacenter.len(),
            doubts_max,
            unknown_at(Vendor::Whacenter),
        );
        for message in &messages {
            let phone = message.phone.unwrap();
            let vendor = if books.is_at(message, Vendor::Wablas) {
                Vendor::Wablas
            } else {
                Vendor::Whacenter
            };
            let got = match vendor {
                Vendor::Wablas => at_wablas.get(phone.digits()),
                Vendor::Whacenter => at_whacenter.get(phone.digits()),
            };
            let got = got.copied().unwrap_or(0);
            match (vendor, message.state) {
                (_, MessageState::Sent) => assert_eq!(got, 1, "{message:?} is sent"),
                (Vendor::Whacenter, MessageState::Unknown) => assert!(got <= 1, "{message:?} is doubled"),
                _ => panic!("{message:?} got {got} messages"),
            }
        }
        assert!(unknown_at(Vendor::Whacenter) <= doubts_max);
    }

    /// A user with devices, leads and a campaign that is due, as another process left them.
    async fn set(
        &self,
        data: &DataDir,
        wablas: &RunningGateway,
        whacenter: &RunningGateway,
        seed: u64,
    ) -> (UserId, Stage) {
        let store = SqliteStore::open(SqliteOptions::file(data.database())).await.unwrap();
        let ids = IdSource::from_entropy();
        let now = SystemClock::new().wall();
        let user = User {
            id: UserId::new(&ids, now),
            login: "kill".to_owned(),
            name: "Kill".to_owned(),
            role: wa_core::domain::access::Role::User,
            password_hash: String::from("nobody logs in").into(),
            active: true,
            settings: UserSettings::default(),
            created_at: now,
            updated_at: now,
            version: 1,
        };
        store.insert_user(&user).await.unwrap();
        let scale = Scale::of(self.devices, self.leads, seed).with_distinct_people();
        let gateways = Gateways {
            wablas: wablas.base_url(),
            whacenter: whacenter.base_url(),
        };
        let shared: Arc<dyn AppStore> = Arc::new(store.clone());
        let stage = stage::set(&shared, &ids, user.id, scale, &gateways, now).await.unwrap();
        drop(shared);
        store.close().await;
        (user.id, stage)
    }

    async fn wait_for_the_end(&self, books: &Books) {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        let ended = async {
            loop {
                look.tick().await;
                let campaign = books
                    .store
                    .campaign(&books.scope, books.stage.campaign_id)
                    .await
                    .unwrap();
                if !campaign.is_expanding() && campaign.started_at.is_some() {
                    assert_eq!(books.numbers().await.should(), self.leads as u64, "the numbers add up");
                }
                if campaign.status.has_ended() {
                    assert_eq!(campaign.status, CampaignStatus::Completed);
                    return;
                }
            }
        };
        if tokio::time::timeout(END_MAX, ended).await.is_err() {
            let open = books.messages(&[
                MessageState::Queued,
                MessageState::Held,
                MessageState::Sending,
                MessageState::InDoubt,
            ]);
            panic!(
                "the campaign did not end: {:?}, open: {:#?}",
                books.numbers().await,
                open.await.first()
            );
        }
    }
}

/// How many messages a gateway recorded per number.
fn per_number(gateway: &RunningGateway) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for message in gateway.messages() {
        *counts.entry(message.number).or_default() += 1;
    }
    counts
}
