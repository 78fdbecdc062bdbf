//! Neither a long history nor a large backlog makes a begin touch more pages.
//!
//! `SCALE=n` fills so many closed messages instead of a million, and a tenth of that queued; plans are checked in `src/plans.rs`.

use wa_core::conformance::fixtures::Fixtures;
use wa_core::domain::audience::AudienceCursor;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::store::{Change, ChangeSet, Store, WriteClass};

use crate::large::{fill, pages};
use crate::server::Server;
use crate::{PostgresOptions, PostgresStore};

/// Devices of a database.
const DEVICES: usize = 1_000;
/// Closed messages of the small database, and queued ones.
const SMALL: [usize; 2] = [10_000, 10_000];
/// Closed messages of the large one unless told; a tenth as many are queued.
const LARGE: usize = 1_000_000;
/// Batches by which pages are counted, each of other devices.
const STEPS: usize = 20;

/// Pages of a look, a begin and a settlement in a database with so many messages.
async fn pages_with(rows: [usize; 2]) -> [f64; 3] {
    let server = Server::own();
    let store = PostgresStore::open(PostgresOptions::url(server.url())).await.unwrap();
    let fixtures = Fixtures::new(1);
    let (now, user) = (fixtures.start(), fixtures.user().id);
    let mut campaign = fixtures.campaign(user);
    campaign.status = CampaignStatus::Triggered;
    campaign.started_at = Some(now);
    campaign.cursor = AudienceCursor::Done;
    let id = campaign.id;
    let devices = (0..DEVICES).map(|_| Change::InsertDevice(Box::new(fixtures.device(user))));
    let set = ChangeSet {
        changes: devices.chain([Change::InsertCampaign(Box::new(campaign))]).collect(),
        events: Vec::new(),
    };
    store.commit(set, WriteClass::Bulk, now).await.unwrap();
    store.close().await;
    fill(&server.url(), id, now, rows).await;
    pages(&server.url(), now, STEPS).await
}

#[tokio::test]
async fn a_begin_touches_hardly_more_pages_of_large_tables_than_of_small_ones() {
    let large: usize = std::env::var("SCALE").map_or(LARGE, |rows| rows.parse().unwrap());
    let small = pages_with(SMALL).await;
    let large = pages_with([large, large / 10]).await;
    let names = ["look", "begin", "settle"];
    for (name, (few, many)) in names.into_iter().zip(small.into_iter().zip(large)) {
        println!("{name}: {few:.1} pages against {many:.1}");
        assert!(
            many <= few * 1.3,
            "{name}: {few} pages of small tables, {many} of large ones"
        );
    }
}
