//! A campaign with a picture through linked devices, to people who decrypt it with real clients.
//!
//! `LINKED_DEVICES=20 LINKED_PEOPLE=2000` instead of 4 devices and 60 people.

use std::io::Cursor;
use std::time::Duration;

use serde_json::json;
use wa_core::time::{Clock, SystemClock};

use crate::api::Api;
use crate::kill_loop::number;
use crate::linked::{Linked, until};
use crate::support::Client;

const TEXT: &str = "{Promosi|Tawaran} untuk {{name}} 👍\n*RM 12.50* sahaja: https://example.com/{{phone}}?a=1";
/// Most bytes of a picture that a recipient gets.
const PICTURE_BYTES_MAX: usize = 350_000;

/// A picture that cannot be made small without being made worse.
pub fn noise(width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
    let mut state = 1_u32;
    let picture = image::RgbImage::from_fn(width, height, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, red, green, blue] = state.to_be_bytes();
        image::Rgb([red, green, blue])
    });
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, format).unwrap();
    file.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn people_decrypt_what_the_store_says_was_sent_and_the_numbers_are_what_they_did() {
    let devices = usize::try_from(number("LINKED_DEVICES", 4)).unwrap();
    let people = usize::try_from(number("LINKED_PEOPLE", 60)).unwrap();
    let clock = SystemClock::new();
    let took = || clock.monotonic().since_start();
    let (linked, server) = Linked::set(devices, people).await;
    // One of ten is offline while the campaign runs.
    let online = || {
        linked
            .people
            .iter()
            .enumerate()
            .filter(|(place, _)| place % 10 != 0)
            .map(|(_, one)| one)
    };
    let offline = || linked.people.iter().step_by(10);
    Linked::connect(online()).await;
    println!(
        "{devices} devices online, {} phones connected after {:?}",
        online().count(),
        took()
    );

    let api = Api::login(server.address(), "ann").await;
    let picture = noise(700, 500, image::ImageFormat::Png);
    assert!(picture.len() > PICTURE_BYTES_MAX, "{}", picture.len());
    let kept = Client::send(api.0.request(reqwest::Method::POST, "/api/media").body(picture))
        .await
        .ok();
    let began = took();
    let campaign = linked
        .start(&api, json!({"message": TEXT, "media": {"id": kept["id"]}}))
        .await;
    let numbers = api.until_ended(campaign, people as u64, Duration::from_secs(600)).await;
    println!("sent in {:?}: {}", took() - began, numbers["total"]);
    assert_eq!(numbers["total"]["done"], people, "{numbers}");
    Linked::until_received(online()).await;
    let delivered = online().count();
    until("delivery to be told", async || {
        (api.numbers(campaign).await["total"]["delivered"] == delivered).then_some(())
    })
    .await;
    assert_eq!(api.numbers(campaign).await["total"]["read"], 0);

    // Who was offline gets it too.
    Linked::connect(offline()).await;
    Linked::until_received(offline()).await;
    let received = linked.check(&linked.sent(campaign).await);
    let pictures = Linked::each(received, async |person, received| {
        // One of three looks at it.
        let place: usize = person.phone()[5..].parse().unwrap();
        if place.is_multiple_of(3) {
            person.mark_read(received).await.unwrap();
        }
        person.download(received).await.unwrap()
    })
    .await;
    for picture in &pictures {
        assert!(picture.len() <= PICTURE_BYTES_MAX, "{}", picture.len());
    }
    let mut distinct: Vec<_> = pictures.iter().collect();
    distinct.dedup();
    assert!(image::load_from_memory(distinct[0]).unwrap().width() > 100);
    let read = people.div_ceil(3);
    until("all that was done to be told", async || {
        let numbers = api.numbers(campaign).await;
        let total = &numbers["total"];
        (total["delivered"] == people && total["read"] == read).then_some(())
    })
    .await;
    let uploads = linked.whatsapp.journal();
    let uploads = uploads
        .iter()
        .filter(|record| matches!(record.seen, wa_loopback::Seen::Uploaded { .. }));
    assert_eq!(uploads.count(), devices, "each device uploads the picture once");
    println!("all of {people} have decrypted text and picture after {:?}", took());
}
