//! What nodes say to each other.

use serde_json::{Value, json};
use uuid::Uuid;
use wa_core::event::Event;

/// A message of some events.
pub(crate) fn write(from: Uuid, events: &[Event]) -> String {
    json!({"from": from, "events": events}).to_string()
}

/// The events of a message, unless it comes from this node. Those of kinds that are newer than this node, and what is no message
/// at all, are left out.
pub(crate) fn read(own: Uuid, text: &[u8]) -> Vec<Event> {
    let Ok(Value::Object(mut message)) = serde_json::from_slice(text) else {
        return Vec::new();
    };
    let from = message.get("from").and_then(Value::as_str).map(Uuid::parse_str);
    match (from, message.remove("events")) {
        (Some(Ok(from)), Some(Value::Array(events))) if from != own => events
            .into_iter()
            .filter_map(|event| serde_json::from_value(event).ok())
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wa_core::conformance::fixtures::Fixtures;

    #[test]
    fn events_are_read_as_they_are_written_but_by_who_wrote_them() {
        let rows = Fixtures::new(1);
        let event = rows.event(rows.user().id, rows.start());
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let text = write(one, std::slice::from_ref(&event));
        assert_eq!(read(two, text.as_bytes()), [event]);
        assert_eq!(read(one, text.as_bytes()), []);
    }

    #[test]
    fn what_a_node_does_not_know_is_left_out() {
        let rows = Fixtures::new(1);
        let event = rows.event(rows.user().id, rows.start());
        let mut newer = serde_json::to_value(&event).unwrap();
        newer["event"] = "landed_on_the_moon".into();
        let text = json!({"from": Uuid::from_u128(1), "events": [newer, event], "more": 7}).to_string();
        assert_eq!(read(Uuid::from_u128(2), text.as_bytes()), [event]);
        for text in [
            "",
            "[]",
            "7",
            r#"{"from": 3, "events": []}"#,
            r#"{"events": 5}"#,
            "\u{0}",
        ] {
            assert_eq!(read(Uuid::from_u128(2), text.as_bytes()), []);
        }
    }
}
