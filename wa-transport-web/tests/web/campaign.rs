//! A campaign through the engine to people whose clients are real.

use std::time::Duration;

use wa_core::domain::delivery::Delivery;
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::store::OutboxStore;
use wa_core::transport::TransportMessageId;
use wa_loopback::{Answer, MessageFault, Rule};

use crate::rig::{LIMIT, OWN, options};
use crate::town::{Town, until};

#[tokio::test(flavor = "multi_thread")]
async fn people_read_exactly_what_the_store_says_was_sent_each_of_them_once() {
    let mut quick = options();
    quick.ack_within = Duration::from_secs(2);
    let town = Town::with(quick).await;
    let mut people = Vec::new();
    for (number, name) in ["Aminah", "Ali", "Siti", "Raju", "Mei"].iter().enumerate() {
        let phone = format!("6012000000{number}");
        people.push(town.person(&phone, name).await.0);
    }
    // The answer to the second message is lost: it is in doubt, and sent again with the same id.
    town.server
        .fault(Rule::message(MessageFault::SwallowAck).of(OWN).nth(2));
    let text = "Hi {{name}}, {today|now} *RM 5* off 👍\nhttps://example.com/{{phone}}";
    let scope = MessageScope::Campaign(town.campaign("Offer", text).await);

    for person in &people {
        let received = person.next_message(LIMIT).await.unwrap();
        person.mark_read(&received).await.unwrap();
    }
    let messages = until("all to be read", async || {
        let messages = town.messages(Some(scope)).await;
        let done = messages
            .iter()
            .all(|message| message.state == MessageState::Sent && message.delivery == Some(Delivery::Read));
        (messages.len() == people.len() && done).then_some(messages)
    })
    .await;
    let mut swallowed = 0;
    for message in &messages {
        let attempts = town.store.attempts(&town.user, message.id).await.unwrap();
        assert_eq!(
            attempts.len(),
            1,
            "a message sent again with the same id is one attempt"
        );
        let sent: &TransportMessageId = &attempts[0].transport_message_id;
        let phone = message.phone.unwrap();
        let person = people.iter().find(|person| person.phone() == phone.digits()).unwrap();
        let inbox = person.inbox();
        assert_eq!(inbox.len(), 1, "{phone:?} got one message");
        assert_eq!(inbox[0].id, sent.as_str());
        assert_eq!(inbox[0].text(), Some(attempts[0].text.as_str()));
        // Whoever reads it first says by that that it was sent; else it is sent again, and the server knows its id.
        let answers = town.server.answers(sent.as_str());
        if answers.first() == Some(&Answer::Swallowed) {
            swallowed += 1;
            assert!(
                answers[1..].iter().all(|answer| *answer == Answer::Repeated),
                "{answers:?}"
            );
        }
    }
    assert_eq!(swallowed, 1);
    town.close().await;
}
