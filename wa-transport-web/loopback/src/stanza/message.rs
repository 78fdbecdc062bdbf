//! Messages: checked, answered, and fanned out to the devices that they were encrypted for.

use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::wacore_binary::node::NodeContent;
use whatsapp_rust::{Jid, NodeBuilder};

use crate::fault::{Kind, MessageFault, Moment, StreamFault};
use crate::journal::{Answer, DeliveredMessage, Seen, SentMessage};
use crate::node::{self, maybe_text, text};
use crate::restriction::CapStatus;
use crate::state::{State, now_s};

impl State {
    pub(crate) fn on_message(&mut self, link: u64, message: &Node) {
        let from = self.address(link);
        let phone = from.user.to_string();
        let (Some(to), id) = (node::jid(message, "to"), text(message, "id")) else {
            return;
        };
        let peer = text(message, "category") == "peer";
        let recipient = self.phone_of(&to);
        let retry = encs(message).any(|(_, enc)| enc.attrs.contains_key("count"));
        let fault = if peer {
            None
        } else {
            let recipient = recipient.as_deref().unwrap_or(to.user.as_str());
            match self.script.at(Moment::Message {
                phone: &phone,
                device: from.device,
                recipient,
            }) {
                Some(Kind::Message(fault)) => Some(fault),
                _ => None,
            }
        };

        let known = self.accounts.get(&phone).is_some_and(|account| account.was_sent(&id));
        let repeated = known && !retry && !peer && self.options.drop_repeated;
        let answer = match (fault, &recipient) {
            (Some(MessageFault::Nack(code)), _) => Answer::Nacked(code),
            (Some(MessageFault::Lose | MessageFault::CutBefore), _) => Answer::Lost,
            (_, None) => Answer::Nacked(404),
            (_, Some(recipient)) => match self.refusal(&phone, recipient, peer) {
                Some(code) => Answer::Nacked(code),
                None if repeated => Answer::Repeated,
                None if matches!(fault, Some(MessageFault::SwallowAck | MessageFault::CutAfter)) => Answer::Swallowed,
                None => Answer::Acked,
            },
        };
        let own = recipient.as_deref() == Some(phone.as_str());
        self.record(Seen::Sent(SentMessage {
            id: id.clone(),
            from: from.clone(),
            to: recipient.as_deref().map_or_else(|| to.clone(), Jid::pn),
            kind: text(message, "type"),
            peer,
            token: ["tctoken", "cstoken"]
                .iter()
                .any(|tag| message.get_optional_child(tag).is_some()),
            answer,
        }));

        if let (Answer::Acked | Answer::Swallowed, Some(recipient)) = (answer, &recipient) {
            if !peer && !own && !known {
                self.note_first_message(&phone, recipient);
            }
            self.fan_out(&from, &to, &id, message, fault == Some(MessageFault::Corrupt), retry);
        }
        match fault {
            Some(MessageFault::CutBefore | MessageFault::CutAfter) => self.end_stream(link, StreamFault::Cut),
            Some(MessageFault::SwallowAck | MessageFault::Lose) => {}
            Some(MessageFault::SlowAck(after)) => self.send_later(link, acknowledge(message, &to, answer), after),
            _ => self.send(link, acknowledge(message, &to, answer)),
        }
    }

    /// Why an account may not write to another one.
    fn refusal(&self, phone: &str, recipient: &str, peer: bool) -> Option<u16> {
        let account = self.accounts.get(phone)?;
        if peer || phone == recipient || account.heard_from.contains(recipient) {
            return None;
        }
        let locked = account
            .timelock
            .as_ref()
            .is_some_and(|timelock| timelock.until_s > now_s());
        let capped = account.cap.as_ref().is_some_and(|cap| {
            let full = cap.status == CapStatus::Capped || cap.total.is_some_and(|total| cap.used >= total);
            full && now_s() < cap.cycle_end_s && !account.wrote_to.contains(recipient)
        });
        (locked || capped).then_some(463)
    }

    fn note_first_message(&mut self, phone: &str, recipient: &str) {
        if let Some(account) = self.accounts.get_mut(phone) {
            let first = account.wrote_to.insert(recipient.to_owned());
            if first
                && !account.heard_from.contains(recipient)
                && let Some(cap) = &mut account.cap
            {
                cap.used += 1;
            }
        }
        if let Some(account) = self.accounts.get_mut(recipient) {
            account.heard_from.insert(phone.to_owned());
        }
    }

    fn fan_out(&mut self, from: &Jid, to: &Jid, id: &str, message: &Node, corrupt: bool, retry: bool) {
        let max = self.options.offline_max;
        let phone = from.user.to_string();
        let Some(account) = self.accounts.get_mut(&phone) else {
            return;
        };
        account.first_time(id, max);
        let (name, sender_pn, sender_lid) = (account.name.clone(), account.pn(from.device), account.lid(from.device));
        let identity = message.get_optional_child("device-identity").cloned();
        let copies: Vec<(Jid, Node)> = encs(message)
            .map(|(device, enc)| (device.unwrap_or_else(|| to.clone()), enc.clone()))
            .collect();
        for (device, mut enc) in copies {
            let Some(owner) = self.phone_of(&device) else { continue };
            if corrupt {
                spoil(&mut enc);
            }
            let mut copy = NodeBuilder::new("message")
                .attr("from", if device.is_lid() { &sender_lid } else { &sender_pn })
                .attr("id", id)
                .attr("type", text(message, "type"))
                .attr("t", now_s())
                .attr("notify", name.as_str());
            if owner == phone {
                copy = copy.attr("recipient", to.to_non_ad());
            } else if device.is_lid() {
                copy = copy
                    .attr("sender_pn", sender_pn.to_non_ad())
                    .attr("addressing_mode", "lid");
            } else {
                copy = copy.attr("sender_lid", sender_lid.to_non_ad());
            }
            for name in ["category", "edit", "push_priority"] {
                if let Some(value) = maybe_text(message, name) {
                    copy = copy.attr(name, value);
                }
            }
            let first_contact = text(&enc, "type") == "pkmsg";
            let children = std::iter::once(enc).chain(identity.clone().filter(|_| first_contact));
            let copy = copy.children(children).build();
            let online = self.post(&owner, device.device, "message", id, copy);
            if self.device(&owner, device.device).is_some() {
                self.record(Seen::Delivered(DeliveredMessage {
                    id: id.to_owned(),
                    from: from.clone(),
                    to: Jid::pn_device(owner, device.device),
                    online,
                    retry,
                }));
            }
        }
    }
}

/// The encrypted copies of a message, each with the device it is for; without one it is for whom the message is.
fn encs(message: &Node) -> impl Iterator<Item = (Option<Jid>, &Node)> {
    let direct = message.get_children_by_tag("enc").map(|enc| (None, enc));
    let fanned = message
        .get_optional_child("participants")
        .and_then(Node::children)
        .unwrap_or_default()
        .iter()
        .filter(|to| to.tag == "to")
        .filter_map(|to| Some((Some(node::jid(to, "jid")?), to.get_optional_child("enc")?)));
    direct.chain(fanned)
}

/// Changes a byte that is part of what a ciphertext authenticates, so that it can be read but not decrypted. Behind the
/// sealed part of a first message there are two numbers, ten bytes at most.
fn spoil(enc: &mut Node) {
    const FROM_END: usize = 14;
    if let Some(NodeContent::Bytes(bytes)) = &mut enc.content
        && let Some(place) = bytes.len().checked_sub(FROM_END)
    {
        bytes[place] ^= 0xff;
    }
}

fn acknowledge(message: &Node, to: &Jid, answer: Answer) -> Node {
    let ack = NodeBuilder::new("ack")
        .attr("class", "message")
        .attr("id", text(message, "id"))
        .attr("from", to)
        .attr("t", now_s());
    match answer {
        Answer::Nacked(code) => ack.attr("error", code.to_string()).build(),
        _ => ack.build(),
    }
}
