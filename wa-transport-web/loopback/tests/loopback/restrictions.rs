//! What WhatsApp holds against an account, and tokens of trust.

use wa_loopback::{Answer, CapStatus, Loopback, NewChatCap, Seen, Timelock};
use whatsapp_rust::Jid;
use whatsapp_rust::features::MexRequest;
use whatsapp_rust::serde_json::{Value, json};
use whatsapp_rust::types::events::Event;
use whatsapp_rust::wacore::iq::mex::MexDoc;
use whatsapp_rust::wacore::time::now_secs;

use crate::support::{LIMIT, Watched, linked, server};

const SENDER: &str = "60122222222";

async fn pushed(device: &Watched, operation: &str) -> Value {
    device
        .wait(operation, |event| match event {
            Event::MexNotification(push) if push.op_name == operation => Some(push.payload.clone()),
            _ => None,
        })
        .await
}

async fn sends(server: &Loopback, device: &Watched, phone: &str) -> Answer {
    let id = device.send(phone, "halo").await;
    device.answer(&id).await;
    server.answers(&id)[0]
}

#[tokio::test]
async fn a_timelock_is_pushed_can_be_asked_for_and_stops_cold_messages_alone() {
    let server = server();
    for phone in ["60111111111", "60133333333"] {
        server.add_account(phone, "");
    }
    server.acquaint(SENDER, "60133333333");
    let device = linked(&server, SENDER).await;
    let free = device.client.mex().fetch_reachout_timelock().await.unwrap();
    assert_eq!(free.is_active, Some(false));

    let until_s = now_secs() + 3600;
    server.set_timelock(SENDER, Some(Timelock::until(until_s)));
    let push = pushed(&device, "NotificationUserReachoutTimelockUpdate").await;
    let lock = &push["data"]["xwa2_notify_account_reachout_timelock"];
    assert_eq!(
        (&lock["is_active"], &lock["enforcement_type"]),
        (&json!(true), &json!("RESTRICT_ALL_COMPANIONS"))
    );
    let locked = device.client.mex().fetch_reachout_timelock().await.unwrap();
    assert_eq!(locked.time_enforcement_ends, Some(until_s.to_string()));

    assert_eq!(sends(&server, &device, "60111111111").await, Answer::Nacked(463));
    assert_eq!(sends(&server, &device, "60133333333").await, Answer::Acked);
    server.set_timelock(SENDER, None);
    assert_eq!(sends(&server, &device, "60111111111").await, Answer::Acked);
}

#[tokio::test]
async fn new_chats_count_up_to_their_cap_and_known_people_do_not_count() {
    let server = server();
    let now_s = now_secs();
    for phone in ["60111111111", "60133333333", "60144444444"] {
        server.add_account(phone, "");
    }
    let device = linked(&server, SENDER).await;
    server.set_new_chat_cap(
        SENDER,
        Some(NewChatCap::new(50, 48, now_s - 10, now_s + 3600).status(CapStatus::FirstWarning)),
    );
    let push = pushed(&device, "MessageCappingInfoNotification").await;
    let cap = &push["data"]["xwa2_notify_new_chat_messages_capping_info_update"];
    assert_eq!(
        (&cap["used_quota"], &cap["capping_status"]),
        (&json!(48), &json!("FIRST_WARNING"))
    );

    let query = MexDoc {
        name: "new chat cap",
        id: "24503548349331633",
    };
    let request = MexRequest {
        doc: query,
        variables: json!({ "input": { "type": "INDIVIDUAL_NEW_CHAT_MSG" } }),
    };
    let asked = device.client.mex().query(request).await.unwrap().data.unwrap();
    assert_eq!(asked["xwa2_message_capping_info"]["total_quota"], json!(50));

    for phone in ["60111111111", "60111111111", "60133333333"] {
        assert_eq!(sends(&server, &device, phone).await, Answer::Acked);
    }
    assert_eq!(sends(&server, &device, "60144444444").await, Answer::Nacked(463));
    assert_eq!(sends(&server, &device, "60111111111").await, Answer::Acked);
    assert_eq!(server.new_chat_cap(SENDER).map(|cap| cap.used), Some(50));
}

#[tokio::test]
async fn a_person_who_writes_gives_a_token_that_the_answer_carries() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, SENDER).await;
    let question = person.send_text(SENDER, "ada stok?").await.unwrap();
    device.hears("ada stok?").await;
    server
        .wait(LIMIT, "the token", |record| match &record.seen {
            Seen::Query { from, xmlns, what, .. } => {
                (xmlns == "privacy" && from.user == "60111111111" && what == "tokens").then_some(())
            }
            _ => None,
        })
        .await
        .unwrap();
    // The token goes out as a notification behind the answer to the query; a question that is answered later proves
    // that the client has it.
    device
        .client
        .contacts()
        .is_on_whatsapp(&[Jid::pn("60111111111")])
        .await
        .unwrap();
    let answer = device.send("60111111111", "ada").await;
    device.answer(&answer).await;
    let tokens: Vec<(String, bool)> = server
        .sent()
        .into_iter()
        .filter(|sent| !sent.peer)
        .map(|sent| (sent.id, sent.token))
        .collect();
    assert_eq!(tokens, [(question, false), (answer, true)]);
}
