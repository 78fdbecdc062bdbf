//! What the server saw and did, in order, for tests to read and to wait for.

use std::collections::VecDeque;

use whatsapp_rust::Jid;

use crate::noise::Handshake;

/// One thing that happened at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in the journal, counted from 0; never used twice.
    pub index: u64,
    /// When, in milliseconds since 1970, by the clock of the clients (`wacore::time`).
    pub at_ms: i64,
    /// What.
    pub seen: Seen,
}

/// What can happen at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Seen {
    /// A device logged in.
    Connected {
        /// Which device, by phone number.
        device: Jid,
        /// How it shook hands.
        handshake: Handshake,
    },
    /// A device was refused at its login.
    Refused {
        /// Which device it said it was.
        device: Jid,
        /// The reason it was given.
        reason: u16,
    },
    /// The connection of a device ended.
    Disconnected {
        /// Which device.
        device: Jid,
    },
    /// A device is ready: it asked to be active and got its backlog.
    Active {
        /// Which device.
        device: Jid,
    },
    /// A client that is not linked got the references for its QR code.
    PairingOffered {
        /// The first of the references.
        reference: String,
    },
    /// A client that is not linked got a pairing code for this account.
    CodeRequested {
        /// The phone number.
        phone: String,
    },
    /// A client refused to be linked to this account.
    PairingFailed {
        /// The phone number.
        phone: String,
    },
    /// A device was linked.
    Linked {
        /// Its new address.
        device: Jid,
    },
    /// A device was taken off its account.
    Removed {
        /// Which device.
        device: Jid,
    },
    /// A device uploaded keys that others start sessions with.
    PrekeysUploaded {
        /// Which device.
        device: Jid,
        /// How many one-time keys it has at the server now.
        count: usize,
    },
    /// A client sent a message.
    Sent(SentMessage),
    /// A message went out to one device, or was put down for it.
    Delivered(DeliveredMessage),
    /// A client sent a receipt.
    Receipt {
        /// The messages it is for.
        ids: Vec<String>,
        /// The device that sent it, by phone number.
        from: Jid,
        /// The account it is for, by phone number.
        to: Jid,
        /// `None` for delivered, or `inactive`, `read`, `retry`, `sender`, `peer_msg`, `hist_sync`, …
        kind: Option<String>,
    },
    /// A client told that somebody is typing, or has stopped.
    ChatState {
        /// The device, by phone number.
        from: Jid,
        /// The account it is for, by phone number.
        to: Jid,
        /// `composing`, `paused` or `recording`.
        state: String,
    },
    /// A client asked something.
    Query {
        /// The device, by phone number; without a user before it is linked.
        from: Jid,
        /// The namespace, for instance `usync`.
        xmlns: String,
        /// What it asked for: the first child's name, with the number of its users or ids where it has any.
        what: String,
        /// The code, where it was refused.
        error: Option<u16>,
    },
    /// A file was uploaded.
    Uploaded {
        /// Where it is found.
        path: String,
        /// Its size, encrypted.
        bytes: usize,
        /// The HTTP status of the answer.
        status: u16,
    },
    /// A file was downloaded.
    Downloaded {
        /// Which.
        path: String,
        /// The HTTP status of the answer.
        status: u16,
    },
}

/// How a message was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Acknowledged.
    Acked,
    /// Acknowledged as one that was there before; it was not delivered again.
    Repeated,
    /// Refused with a code.
    Nacked(u16),
    /// Not answered, by a fault; it was delivered.
    Swallowed,
    /// Not answered, by a fault; it was not delivered.
    Lost,
}

/// A message as a client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMessage {
    /// The id that the client gave it.
    pub id: String,
    /// The device that sent it, by phone number.
    pub from: Jid,
    /// The account it is for, by phone number; the address as it was sent, where the server knows no such account.
    pub to: Jid,
    /// `text`, `media`, …
    pub kind: String,
    /// Whether it goes to another device of the same account and says nothing to people.
    pub peer: bool,
    /// Whether it carried a token of the recipient's trust.
    pub token: bool,
    /// How it was answered.
    pub answer: Answer,
}

/// A message as it went to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveredMessage {
    /// The id that the sender gave it.
    pub id: String,
    /// The device that sent it, by phone number.
    pub from: Jid,
    /// The device it went to, by phone number.
    pub to: Jid,
    /// Whether the device was connected.
    pub online: bool,
    /// Whether it was sent again because the device could not read it.
    pub retry: bool,
}

/// The journal itself; bounded, the oldest records give way.
pub(crate) struct Journal {
    records: VecDeque<Record>,
    max: usize,
    next: u64,
}

impl Journal {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            records: VecDeque::new(),
            max: max.max(1),
            next: 0,
        }
    }

    pub(crate) fn push(&mut self, at_ms: i64, seen: Seen) {
        if self.records.len() == self.max {
            self.records.pop_front();
        }
        self.records.push_back(Record {
            index: self.next,
            at_ms,
            seen,
        });
        self.next += 1;
    }

    /// The records from `index` on.
    pub(crate) fn since(&self, index: u64) -> impl Iterator<Item = &Record> {
        let first = self.records.front().map_or(self.next, |record| record.index);
        let skipped = usize::try_from(index.saturating_sub(first)).unwrap_or(usize::MAX);
        self.records.iter().skip(skipped)
    }

    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_records_give_way_and_the_places_stay() {
        let mut journal = Journal::new(3);
        for at_ms in 0..5 {
            journal.push(
                at_ms,
                Seen::PairingOffered {
                    reference: at_ms.to_string(),
                },
            );
        }
        let places: Vec<u64> = journal.since(0).map(|record| record.index).collect();
        assert_eq!(places, [2, 3, 4]);
        assert_eq!(journal.since(4).count(), 1);
        assert_eq!(journal.since(9).count(), 0);
    }
}
