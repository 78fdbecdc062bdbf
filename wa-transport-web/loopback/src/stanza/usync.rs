//! Questions about numbers: is it on WhatsApp, what is its LID, which devices has it.

use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::{Jid, NodeBuilder};

use crate::node::{self, bytes};
use crate::state::{State, now_s};

impl State {
    pub(crate) fn on_usync(&mut self, query: &Node) -> Node {
        let Some(usync) = query.get_optional_child("usync") else {
            return node::error(query, 400, "bad-request", None);
        };
        let protocols: Vec<String> = usync
            .get_optional_child("query")
            .and_then(Node::children)
            .unwrap_or_default()
            .iter()
            .map(|child| child.tag.to_string())
            .collect();
        let users: Vec<Node> = usync
            .get_optional_child("list")
            .map(|list| {
                list.get_children_by_tag("user")
                    .map(|user| self.usync_user(user, &protocols))
                    .collect()
            })
            .unwrap_or_default();
        let mut answer = NodeBuilder::new("usync");
        for name in ["sid", "index", "last", "mode", "context"] {
            if let Some(value) = node::maybe_text(usync, name) {
                answer = answer.attr(name, value);
            }
        }
        node::result(
            query,
            [answer
                .children([NodeBuilder::new("list").children(users).build()])
                .build()],
        )
    }

    fn usync_user(&self, user: &Node, protocols: &[String]) -> Node {
        let asked = user
            .get_optional_child("contact")
            .map(bytes)
            .filter(|number| !number.is_empty());
        let number = asked.as_ref().map(|number| {
            String::from_utf8_lossy(number)
                .chars()
                .filter(char::is_ascii_digit)
                .collect::<String>()
        });
        let jid = node::jid(user, "jid")
            .map(|jid| jid.to_non_ad())
            .or_else(|| number.map(Jid::pn))
            .unwrap_or_else(|| Jid::pn(""));
        let account = self.phone_of(&jid).and_then(|phone| self.accounts.get(&phone));
        let mut children = Vec::new();
        for protocol in protocols {
            match (protocol.as_str(), account) {
                ("contact", _) => {
                    let known = if account.is_some() { "in" } else { "out" };
                    let contact = NodeBuilder::new("contact").attr("type", known);
                    children.push(match &asked {
                        Some(number) => contact.bytes(number.clone()).build(),
                        None => contact.build(),
                    });
                }
                ("lid", Some(account)) => {
                    children.push(NodeBuilder::new("lid").attr("val", account.lid(0).to_non_ad()).build());
                }
                ("devices", Some(account)) => {
                    let devices = account.devices.keys().map(|number| {
                        let device = NodeBuilder::new("device").attr("id", number.to_string());
                        if *number == 0 {
                            device.build()
                        } else {
                            device.attr("key-index", number.to_string()).build()
                        }
                    });
                    let mut lists = vec![NodeBuilder::new("device-list").children(devices).build()];
                    let companions = account.companions();
                    if !companions.is_empty() {
                        let now_s = now_s();
                        let list = self.keys.key_index_list(&account.phone, now_s, &companions);
                        lists.push(NodeBuilder::new("key-index-list").attr("ts", now_s).bytes(list).build());
                    }
                    children.push(NodeBuilder::new("devices").children(lists).build());
                }
                _ => {}
            }
        }
        NodeBuilder::new("user").attr("jid", jid).children(children).build()
    }

    /// Tells the account's other devices, and all who wrote to it or had messages from it, that it has one more linked
    /// device, or one less.
    pub(crate) fn tell_of_device(&mut self, phone: &str, number: u16, change: &'static str) {
        let Some(account) = self.accounts.get(phone) else {
            return;
        };
        let from = account.pn(0).to_non_ad();
        let mut friends: Vec<String> = account.heard_from.union(&account.wrote_to).cloned().collect();
        friends.sort();
        friends.push(phone.to_owned());
        let now_s = now_s();
        let list = self.keys.key_index_list(phone, now_s, &account.companions());
        let device = NodeBuilder::new("device")
            .attr("jid", account.pn(number))
            .attr("lid", account.lid(number))
            .attr("key-index", number.to_string())
            .build();
        let list = NodeBuilder::new("key-index-list").attr("ts", now_s).bytes(list).build();
        let change = NodeBuilder::new(change).children([device, list]).build();
        for friend in friends {
            let except = (friend == phone).then_some(number);
            self.notify_all(&friend, except, "devices", &from, &change);
        }
    }
}
