//! Keys with which others start sessions: uploaded, counted, handed out.

use whatsapp_rust::NodeBuilder;
use whatsapp_rust::wacore_binary::Node;

use crate::account::SignedPrekey;
use crate::journal::Seen;
use crate::node::{self, bytes, child_bytes, with_bytes};
use crate::state::State;

fn signed_prekey(node: &Node) -> SignedPrekey {
    SignedPrekey {
        id: child_bytes(node, "id"),
        value: child_bytes(node, "value"),
        signature: child_bytes(node, "signature"),
    }
}

impl State {
    /// A device uploads keys, or replaces its signed one.
    pub(crate) fn on_prekeys_set(&mut self, link: u64, query: &Node) -> Node {
        let from = self.address(link);
        if let Some(device) = self.device(from.user.as_str(), from.device) {
            if let Some(rotated) = query
                .get_optional_child("rotate")
                .and_then(|node| node.get_optional_child("skey"))
            {
                device.signed = signed_prekey(rotated);
            }
            if let Some(list) = query.get_optional_child("list") {
                let keys = list
                    .get_children_by_tag("key")
                    .map(|key| (child_bytes(key, "id"), child_bytes(key, "value")));
                device.one_time.extend(keys);
                if let Some(signed) = query.get_optional_child("skey") {
                    device.signed = signed_prekey(signed);
                }
                if let Some(registration) = query.get_optional_child("registration") {
                    device.registration = bytes(registration);
                }
                let count = device.one_time.len();
                self.record(Seen::PrekeysUploaded { device: from, count });
            }
        }
        node::result(query, [])
    }

    /// A device asks how many of its keys are left, or for keys of others.
    pub(crate) fn on_prekeys_get(&mut self, link: u64, query: &Node) -> Node {
        if query.get_optional_child("count").is_some() {
            let from = self.address(link);
            let count = self
                .device(from.user.as_str(), from.device)
                .map_or(0, |device| device.one_time.len());
            return node::result(
                query,
                [NodeBuilder::new("count").attr("value", count.to_string()).build()],
            );
        }
        let Some(wanted) = query.get_optional_child("key") else {
            // The digest of a device's keys: it is not kept here, and clients carry on without it.
            return node::error(query, 503, "service-unavailable", None);
        };
        let users: Vec<Node> = wanted
            .get_children_by_tag("user")
            .map(|user| self.bundle(user))
            .collect();
        node::result(query, [NodeBuilder::new("list").children(users).build()])
    }

    fn bundle(&mut self, user: &Node) -> Node {
        let Some(jid) = node::jid(user, "jid") else {
            return NodeBuilder::new("user").build();
        };
        let phone = self.phone_of(&jid).unwrap_or_default();
        let Some(device) = self.device(&phone, jid.device) else {
            let error = NodeBuilder::new("error")
                .attr("code", "406")
                .attr("text", "not-acceptable")
                .build();
            return NodeBuilder::new("user").attr("jid", jid).children([error]).build();
        };
        let mut children = vec![
            with_bytes("registration", device.registration.clone()),
            with_bytes("type", [5]),
            with_bytes("identity", device.identity),
            NodeBuilder::new("skey")
                .children([
                    with_bytes("id", device.signed.id.clone()),
                    with_bytes("value", device.signed.value.clone()),
                    with_bytes("signature", device.signed.signature.clone()),
                ])
                .build(),
        ];
        if let Some((id, value)) = device.one_time.pop_front() {
            children.push(
                NodeBuilder::new("key")
                    .children([with_bytes("id", id), with_bytes("value", value)])
                    .build(),
            );
        }
        if let Some(adv) = &device.adv {
            children.push(with_bytes("device-identity", adv.clone()));
        }
        NodeBuilder::new("user").attr("jid", jid).children(children).build()
    }
}
