//! Receipts that came before their message had the vendor's id.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::{DeviceId, UserId};
use crate::store::Change;
use crate::time::Timestamp;
use crate::transport::MessageRef;

/// How long the first wait of a receipt is; each next one is twice as long.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// One receipt, with when it is tried again. Times are anchored.
#[derive(Debug, Clone)]
pub(crate) struct EarlyReceipt {
    change: Change,
    user_id: UserId,
    device_id: DeviceId,
    until: Timestamp,
    next_at: Timestamp,
    wait: Duration,
}

/// Receipts by the vendor's id that no message has yet.
///
/// A gateway may report on a message before its answer to the send, which brings the id, has been stored; and the report may
/// reach another node than the one that sends. Such a receipt waits here and is tried again until its message is found or its
/// time is over, as it is for messages that somebody else sends through the same device. They are in memory: those that wait
/// when the process ends are lost, and their messages show no delivery, or the one before it.
#[derive(Debug, Default)]
pub(crate) struct EarlyReceipts(VecDeque<EarlyReceipt>);

impl EarlyReceipts {
    /// Takes the receipts by a vendor's id out of changes that did not find all their messages. Trying one again that did find
    /// its message does nothing, because delivery moves forward only. At `most` the oldest give way.
    pub(crate) fn keep(&mut self, changes: Vec<Change>, kept_for: Duration, most: usize, now: Timestamp) {
        let early = changes.into_iter().filter_map(|change| match change {
            Change::Receipt {
                user_id,
                device_id,
                message: MessageRef::Provider(_),
                ..
            } => Some(EarlyReceipt {
                change,
                user_id,
                device_id,
                until: now + kept_for,
                next_at: now + FIRST_WAIT,
                wait: FIRST_WAIT,
            }),
            _ => None,
        });
        self.0.extend(early);
        self.make_room(most);
    }

    /// Takes out the receipts of one device that are due, at most `most`.
    pub(crate) fn take_due(&mut self, now: Timestamp, most: usize) -> Option<Vec<EarlyReceipt>> {
        self.0.retain(|early| early.until > now);
        let first = self.0.iter().find(|early| early.next_at <= now)?;
        let of = (first.user_id, first.device_id);
        let mut due = Vec::new();
        self.0.retain(|early| {
            let takes = due.len() < most && early.next_at <= now && (early.user_id, early.device_id) == of;
            if takes {
                due.push(early.clone());
            }
            !takes
        });
        Some(due)
    }

    /// Puts back what found no message, for twice the wait.
    pub(crate) fn put_back(&mut self, early: Vec<EarlyReceipt>, most: usize, now: Timestamp) {
        self.0.extend(early.into_iter().map(|early| {
            let wait = early.wait * 2;
            EarlyReceipt {
                next_at: now + wait,
                wait,
                ..early
            }
        }));
        self.make_room(most);
    }

    /// Whether any waits.
    pub(crate) fn is_some(&self) -> bool {
        !self.0.is_empty()
    }

    fn make_room(&mut self, most: usize) {
        let over = self.0.len().saturating_sub(most);
        if over > 0 {
            tracing::warn!(
                over,
                most,
                "too many receipts wait for their messages; the oldest were dropped"
            );
            // What was put back stands behind what came later.
            self.0.make_contiguous().sort_by_key(|early| early.until);
            self.0.drain(..over);
        }
    }
}

impl EarlyReceipt {
    /// What it changes.
    pub(crate) fn change(&self) -> Change {
        self.change.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::Delivery;
    use crate::id::IdSource;
    use crate::transport::TransportMessageId;

    const KEPT_FOR: Duration = Duration::from_secs(10);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1_000)
    }

    fn receipt(device_id: DeviceId, id: &str, vendors: bool) -> Change {
        let id = TransportMessageId::new(id).unwrap();
        Change::Receipt {
            user_id: UserId::new(&IdSource::seeded([2; 32]), at(0)),
            device_id,
            message: if vendors {
                MessageRef::Provider(id)
            } else {
                MessageRef::Ours(id)
            },
            delivery: Delivery::Read,
            at: at(0),
        }
    }

    #[test]
    fn receipts_by_the_vendors_id_are_tried_by_device_with_growing_waits_until_their_time_is_over() {
        let ids = IdSource::seeded([1; 32]);
        let (one, two) = (DeviceId::new(&ids, at(0)), DeviceId::new(&ids, at(0)));
        let mut early = EarlyReceipts::default();
        let changes = vec![
            receipt(one, "a", true),
            receipt(two, "b", true),
            receipt(one, "c", false),
        ];
        early.keep(changes, KEPT_FOR, 10, at(0));
        assert!(early.take_due(at(0), 10).is_none(), "the first wait is not over");
        let of_one = early.take_due(at(1), 10).unwrap();
        assert_eq!(
            (of_one.len(), of_one[0].device_id),
            (1, one),
            "ours is known from the start"
        );
        let of_two = early.take_due(at(1), 10).unwrap();
        assert_eq!((of_two.len(), of_two[0].device_id), (1, two));
        assert!(!early.is_some());
        early.put_back(of_one, 10, at(1));
        assert!(early.take_due(at(2), 10).is_none(), "now it waits two seconds");
        let again = early.take_due(at(3), 10).unwrap();
        early.put_back(again, 10, at(3));
        assert!(early.is_some());
        assert!(
            early.take_due(at(10), 10).is_none() && !early.is_some(),
            "its time is over"
        );
    }

    #[test]
    fn at_most_so_many_wait_and_the_oldest_give_way() {
        let device = DeviceId::new(&IdSource::seeded([1; 32]), at(0));
        let mut early = EarlyReceipts::default();
        for number in 0..5 {
            early.keep(vec![receipt(device, &number.to_string(), true)], KEPT_FOR, 3, at(0));
        }
        let kept = early.0.iter().map(|early| match early.change() {
            Change::Receipt {
                message: MessageRef::Provider(id),
                ..
            } => id.as_str().to_owned(),
            other => panic!("{other:?}"),
        });
        assert_eq!(kept.collect::<Vec<_>>(), ["2", "3", "4"]);
        let older = early.take_due(at(1), 2).unwrap();
        assert_eq!(older.len(), 2);
        early.keep(vec![receipt(device, "5", true)], KEPT_FOR, 3, at(1));
        early.put_back(older, 3, at(1));
        let waits: Vec<_> = early.0.iter().map(|early| early.until).collect();
        assert_eq!(waits, [at(10), at(10), at(11)], "the newest is not what gives way");
    }
}
