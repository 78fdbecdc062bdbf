//! `kill -9` of the server at random moments of a campaign: nobody gets a message twice, and at a gateway that can be asked
//! everybody gets one.
//!
//! `KILLS=50` kills it 50 times instead of 5, `SEED=n` draws other moments.

use std::time::Duration;

use rand::RngExt as _;
use wa_core::domain::access::RequestScope;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::message::{Message, MessageScope, MessageState};
use wa_core::domain::summary::Numbers;
use wa_core::seed::Seed;
use wa_core::store::{CampaignStore as _, MessageFilter, OutboxStore as _, PAGE_MAX, PageRequest};
use wa_server_example::loopback::{FaultShares, Vendor};
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use crate::play::{Play, Setting, per_number};

/// How long the campaign may take after the last kill.
const END_MAX: Duration = Duration::from_secs(180);
/// What one message of a lane takes on average, answer and all.
const PER_MESSAGE: Duration = Duration::from_millis(190);

pub fn number(name: &str, default: u64) -> u64 {
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

/// What the database says, beside a server or between two of them.
struct Books<'a> {
    store: SqliteStore,
    scope: RequestScope,
    play: &'a Play,
}

impl<'a> Books<'a> {
    async fn open(play: &'a Play) -> Self {
        Self {
            store: SqliteStore::open(SqliteOptions::file(play.data.database()))
                .await
                .unwrap(),
            scope: RequestScope::user(play.user_id),
            play,
        }
    }

    fn scope(&self) -> MessageScope {
        MessageScope::Campaign(self.play.stage.campaign_id)
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
        self.play.vendor_of(message) == vendor
    }
}

impl Loop {
    async fn run(self, name: &str) {
        let seed = number("SEED", 1);
        let play = Play::set(Setting {
            devices: self.devices,
            leads: self.leads,
            seed,
            faults: self.faults,
        })
        .await;
        let mut moments = Seed::from_number(seed).rng(name.as_bytes(), "kill loop");
        let life_mean = PER_MESSAGE * u32::try_from(self.leads / self.devices).unwrap() * 8
            / (10 * u32::try_from(self.kills.max(1)).unwrap());
        let (mut open_at_wablas, mut open_at_whacenter) = (0, 0);
        for kill in 0..self.kills {
            let server = play.server().await;
            // The moment is what is tested here, not a wait for something.
            tokio::time::sleep(life_mean.mul_f64(moments.random_range(0.0..2.0))).await;
            server.kill();
            let books = Books::open(&play).await;
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
        }

        let server = play.server().await;
        let books = Books::open(&play).await;
        self.wait_for_the_end(&books).await;
        server.kill();

        let numbers = books.numbers().await;
        assert_eq!(numbers, books.counted().await, "tallies and rows agree at the end");
        assert_eq!(numbers.should(), self.leads as u64);
        let (wablas, whacenter) = (play.wablas.messages(), play.whacenter.messages());
        let (at_wablas, at_whacenter) = (per_number(&wablas), per_number(&whacenter));
        let messages = books.messages(&[]).await;
        let unknown_at = |vendor| {
            let unknown = messages.iter().filter(|message| message.state == MessageState::Unknown);
            unknown.filter(|message| books.is_at(message, vendor)).count()
        };
        let faults: u64 = play.whacenter.counts().faults.values().sum();
        let doubts_max = open_at_whacenter + usize::try_from(faults).unwrap();
        println!(
            "{name}: {} kills, {numbers:?}\n  wablas: {} messages to {} people, {} were open at the kills, {} unknown\n  whacenter: {} messages to {} people, {} were open at the kills or cut, {} unknown",
            self.kills,
            wablas.len(),
            at_wablas.len(),
            open_at_wablas,
            unknown_at(Vendor::Wablas),
            whacenter.len(),
            at_whacenter.len(),
            doubts_max,
            unknown_at(Vendor::Whacenter),
        );
        assert!(play.check(&messages) <= doubts_max);
    }

    async fn wait_for_the_end(&self, books: &Books<'_>) {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        let ended = async {
            loop {
                look.tick().await;
                let campaign = books
                    .store
                    .campaign(&books.scope, books.play.stage.campaign_id)
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
