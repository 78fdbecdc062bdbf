//! Receipts, acknowledgements of clients, typing and presence.

use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::{Jid, NodeBuilder};

use crate::journal::Seen;
use crate::node::{self, maybe_text, text};
use crate::state::{State, now_s};

/// Receipts that go to the one device that they name; all others go to every device of the account.
const TO_ONE_DEVICE: &[&str] = &["retry", "peer_msg", "hist_sync", "server-error", "enc_rekey_retry"];

impl State {
    pub(crate) fn on_receipt(&mut self, link: u64, receipt: &Node) {
        let from = self.address(link);
        let (Some(to), id) = (node::jid(receipt, "to"), text(receipt, "id")) else {
            return;
        };
        let kind = maybe_text(receipt, "type");
        let mut answer = NodeBuilder::new("ack")
            .attr("class", "receipt")
            .attr("id", id.as_str())
            .attr("from", &to);
        if let Some(kind) = &kind {
            answer = answer.attr("type", kind.as_str());
        }
        self.send(link, answer.build());

        let listed = receipt
            .get_optional_child("list")
            .and_then(Node::children)
            .unwrap_or_default();
        let ids: Vec<String> = std::iter::once(id.clone())
            .chain(listed.iter().map(|item| text(item, "id")))
            .collect();
        for id in &ids {
            self.acknowledged(from.user.as_str(), from.device, "message", id);
        }
        let Some(owner) = self.phone_of(&to) else { return };
        self.record(Seen::Receipt {
            ids,
            from: from.clone(),
            to: Jid::pn(owner.as_str()),
            kind: kind.clone(),
        });
        self.forward_receipt(&from, &to, &owner, &id, kind.as_deref(), receipt);
    }

    fn forward_receipt(&mut self, from: &Jid, to: &Jid, owner: &str, id: &str, kind: Option<&str>, receipt: &Node) {
        let Some(sender) = self.accounts.get(from.user.as_str()) else {
            return;
        };
        let address = if to.is_lid() {
            sender.lid(from.device)
        } else {
            sender.pn(from.device)
        };
        let mut copy = NodeBuilder::new("receipt")
            .attr("from", address)
            .attr("id", id)
            .attr("t", now_s());
        // To whom a message is shown that nobody looks at is not told.
        if let Some(kind) = kind.filter(|kind| *kind != "inactive") {
            copy = copy.attr("type", kind.to_owned());
        }
        if let Some(recipient) = node::jid(receipt, "recipient") {
            copy = copy.attr("recipient", recipient);
        }
        let children: Vec<Node> = receipt.children().unwrap_or_default().to_vec();
        let copy = if children.is_empty() {
            copy.build()
        } else {
            copy.children(children).build()
        };

        let one = kind.is_some_and(|kind| TO_ONE_DEVICE.contains(&kind));
        let devices: Vec<u16> = match self.accounts.get(owner) {
            Some(_) if one => vec![to.device],
            Some(account) => account.devices.keys().copied().collect(),
            None => Vec::new(),
        };
        for number in devices {
            if owner != from.user.as_str() || number != from.device {
                self.post(owner, number, "receipt", id, copy.clone());
            }
        }
    }

    pub(crate) fn on_ack(&mut self, link: u64, ack: &Node) {
        let from = self.address(link);
        self.acknowledged(from.user.as_str(), from.device, &text(ack, "class"), &text(ack, "id"));
    }

    pub(crate) fn on_chat_state(&mut self, link: u64, node: &Node) {
        let from = self.address(link);
        let Some(to) = node::jid(node, "to") else { return };
        let Some(owner) = self.phone_of(&to) else { return };
        let Some(child) = node.children().and_then(<[Node]>::first) else {
            return;
        };
        let state = if text(child, "media") == "audio" {
            "recording".to_owned()
        } else {
            child.tag.to_string()
        };
        self.record(Seen::ChatState {
            from: from.clone(),
            to: Jid::pn(owner.as_str()),
            state,
        });
        let Some(sender) = self.accounts.get(from.user.as_str()) else {
            return;
        };
        let address = if to.is_lid() { sender.lid(0) } else { sender.pn(0) }.to_non_ad();
        let copy = NodeBuilder::new("chatstate")
            .attr("from", address)
            .children([child.clone()])
            .build();
        for link in self.active_links(&owner) {
            self.send(link, copy.clone());
        }
    }

    pub(crate) fn on_presence(&mut self, link: u64, node: &Node) {
        let from = self.address(link);
        match maybe_text(node, "type").as_deref() {
            Some("subscribe") => {
                let Some(to) = node::jid(node, "to") else { return };
                let Some(owner) = self.phone_of(&to) else { return };
                let available = self
                    .accounts
                    .get(&owner)
                    .is_some_and(|account| account.devices.values().any(|device| device.available));
                let presence = NodeBuilder::new("presence").attr("from", to.to_non_ad());
                let kind = if available { "available" } else { "unavailable" };
                self.send(link, presence.attr("type", kind).build());
            }
            kind => {
                if let Some(name) = maybe_text(node, "name")
                    && let Some(account) = self.accounts.get_mut(from.user.as_str())
                {
                    account.name = name;
                }
                if let Some(device) = self.device(from.user.as_str(), from.device) {
                    device.available = kind != Some("unavailable");
                }
            }
        }
    }

    /// The connections of an account's devices that are ready.
    fn active_links(&self, phone: &str) -> Vec<u64> {
        self.accounts
            .get(phone)
            .map(|account| {
                account
                    .devices
                    .values()
                    .filter(|device| device.active)
                    .filter_map(|device| device.link)
                    .collect()
            })
            .unwrap_or_default()
    }
}
