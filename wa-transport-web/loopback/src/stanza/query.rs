//! Queries (`iq` stanzas) by their namespace.

use serde_json::{Value, json};
use whatsapp_rust::wacore::iq::abprops;
use whatsapp_rust::wacore::iq::mex_operations::fetch_reachout_timelock;
use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::{Jid, NodeBuilder};

use crate::fault::{Kind, Moment, QueryFault, StreamFault};
use crate::journal::Seen;
use crate::media::HOST;
use crate::node::{self, empty, maybe_text, text, with_bytes};
use crate::restriction::{cap_json, timelock_json};
use crate::state::{State, now_ms, now_s};

/// The query for the limit of new chats, as WhatsApp Web asks it.
pub(crate) const NEW_CHAT_CAP_QUERY: &str = "24503548349331633";

impl State {
    pub(crate) fn on_iq(&mut self, link: u64, query: &Node) {
        match text(query, "type").as_str() {
            "get" | "set" => {}
            _ => return self.on_pairing_answer(link, query),
        }
        let from = self.address(link);
        let xmlns = text(query, "xmlns");
        let moment = Moment::Query {
            phone: from.user.as_str(),
            device: from.device,
            xmlns: &xmlns,
        };
        let mut fault = match self.script.at(moment) {
            Some(Kind::Query(_, fault)) => Some(fault),
            _ => None,
        };
        if fault.is_none() && self.over_limit(from.user.as_str(), &xmlns) {
            fault = Some(QueryFault::rate_limited(None));
        }
        let error = match &fault {
            Some(QueryFault::Error { code, .. }) => Some(*code),
            _ => None,
        };
        self.record(Seen::Query {
            from,
            xmlns: xmlns.clone(),
            what: what(query),
            error,
        });
        match fault {
            Some(QueryFault::Error { code, text, backoff_s }) => {
                self.send(link, node::error(query, code, &text, backoff_s));
            }
            Some(QueryFault::Cut) => self.end_stream(link, StreamFault::Cut),
            Some(QueryFault::Swallow) => {
                self.answer(link, query, &xmlns);
            }
            Some(QueryFault::Slow(after)) => {
                if let Some(answer) = self.answer(link, query, &xmlns) {
                    self.send_later(link, answer, after);
                }
            }
            None => {
                if let Some(answer) = self.answer(link, query, &xmlns) {
                    self.send(link, answer);
                }
                if xmlns == "passive" && query.get_optional_child("active").is_some() {
                    self.activate(link);
                }
            }
        }
    }

    /// Whether an account has asked more than it may; a question that is refused does not count.
    fn over_limit(&mut self, phone: &str, xmlns: &str) -> bool {
        let now_ms = now_ms();
        let Some(limit) = self
            .accounts
            .get_mut(phone)
            .and_then(|account| account.query_limits.get_mut(xmlns))
        else {
            return false;
        };
        while limit
            .at_ms
            .front()
            .is_some_and(|at_ms| now_ms - at_ms >= limit.every_ms)
        {
            limit.at_ms.pop_front();
        }
        if limit.at_ms.len() >= limit.max {
            return true;
        }
        limit.at_ms.push_back(now_ms);
        false
    }

    /// Carries a query out; `None` where the answer is on its way already.
    fn answer(&mut self, link: u64, query: &Node, xmlns: &str) -> Option<Node> {
        let set = text(query, "type") == "set";
        Some(match xmlns {
            "encrypt" if set => self.on_prekeys_set(link, query),
            "encrypt" => self.on_prekeys_get(link, query),
            "usync" => self.on_usync(query),
            "md" => return self.on_linking(link, query),
            "w:mex" => self.on_mex(link, query),
            "w:m" => node::result(query, [media_conn()]),
            "privacy" if set => self.on_privacy_set(link, query),
            "privacy" => node::result(query, [privacy()]),
            "w:sync:app:state" => node::result(query, [app_state(query)]),
            "blocklist" => node::result(query, [empty("list")]),
            "abt" => node::result(query, [props()]),
            _ => node::result(query, []),
        })
    }

    fn on_linking(&mut self, link: u64, query: &Node) -> Option<Node> {
        if let Some(step) = query.get_optional_child("link_code_companion_reg") {
            self.on_link_code(link, query, step);
            return None;
        }
        if query.get_optional_child("remove-companion-device").is_some() {
            let from = self.address(link);
            self.send(link, node::result(query, []));
            self.remove(from.user.as_str(), from.device);
            self.close(link);
            return None;
        }
        Some(node::result(query, []))
    }

    /// Takes a linked device off its account.
    pub(crate) fn remove(&mut self, phone: &str, number: u16) {
        let removed = number > 0
            && self
                .accounts
                .get_mut(phone)
                .is_some_and(|account| account.devices.remove(&number).is_some());
        if removed {
            self.record(Seen::Removed {
                device: Jid::pn_device(phone, number),
            });
            self.tell_of_device(phone, number, "remove");
        }
    }

    fn on_mex(&mut self, link: u64, query: &Node) -> Node {
        let Some(asked) = query.get_optional_child("query") else {
            return node::error(query, 400, "bad-request", None);
        };
        let phone = self.address(link).user.to_string();
        let account = self.accounts.get(&phone);
        let answer: Value = match text(asked, "query_id").as_str() {
            fetch_reachout_timelock::DOC_ID => {
                let timelock = account.and_then(|account| account.timelock.as_ref());
                json!({ "data": { "xwa2_fetch_account_reachout_timelock": timelock_json(timelock, now_s()) } })
            }
            NEW_CHAT_CAP_QUERY => {
                let cap = account.and_then(|account| account.cap.as_ref());
                json!({ "data": { "xwa2_message_capping_info": cap_json(cap, now_s()) } })
            }
            other => json!({
                "data": null,
                "errors": [{ "message": format!("unknown query {other}"), "extensions": { "error_code": 404 } }],
            }),
        };
        node::result(query, [with_bytes("result", answer.to_string())])
    }

    /// A client gives others a token of its trust; they get it as a notification.
    fn on_privacy_set(&mut self, link: u64, query: &Node) -> Node {
        let from = self.address(link);
        let Some(tokens) = query.get_optional_child("tokens") else {
            return node::result(query, []);
        };
        let Some(giver) = self.accounts.get(from.user.as_str()) else {
            return node::result(query, []);
        };
        let (giver_pn, giver_lid) = (giver.pn(0).to_non_ad(), giver.lid(0).to_non_ad());
        for token in tokens.get_children_by_tag("token") {
            let Some(phone) = node::jid(token, "jid").and_then(|jid| self.phone_of(&jid)) else {
                continue;
            };
            let secret = self.keys.token(from.user.as_str(), &phone);
            let token = NodeBuilder::new("token")
                .attr("type", text(token, "type"))
                .attr("t", maybe_text(token, "t").unwrap_or_else(|| now_s().to_string()))
                .bytes(secret)
                .build();
            let tokens = NodeBuilder::new("tokens").children([token]).build();
            self.notify_token(&phone, &giver_pn, &giver_lid, &tokens);
        }
        node::result(query, [])
    }

    fn notify_token(&mut self, phone: &str, giver_pn: &Jid, giver_lid: &Jid, tokens: &Node) {
        let numbers: Vec<u16> = self
            .accounts
            .get(phone)
            .map(|account| account.devices.keys().copied().collect())
            .unwrap_or_default();
        for number in numbers {
            let id = format!("n{}", self.next());
            let node = NodeBuilder::new("notification")
                .attr("from", giver_pn)
                .attr("sender_lid", giver_lid)
                .attr("type", "privacy_token")
                .attr("id", id.as_str())
                .attr("t", now_s())
                .children([tokens.clone()])
                .build();
            self.post(phone, number, "notification", &id, node);
        }
    }
}

/// What a query asks for, in a few words.
fn what(query: &Node) -> String {
    let Some(child) = query.children().and_then(<[Node]>::first) else {
        return String::new();
    };
    let tag = child.tag.to_string();
    match child
        .get_optional_child("list")
        .unwrap_or(child)
        .get_children_by_tag("user")
        .count()
    {
        0 => match maybe_text(child, "query_id") {
            Some(id) => format!("{tag} {id}"),
            None => tag,
        },
        users => format!("{tag} {users}"),
    }
}

/// The switches of WhatsApp Web that matter here: messages carry tokens of trust.
fn props() -> Node {
    let on = |prop: &abprops::AbProp| {
        NodeBuilder::new("prop")
            .attr("config_code", prop.code.to_string())
            .attr("config_value", "true")
            .build()
    };
    let switches = [
        &abprops::web::PRIVACY_TOKEN_SENDING_ON_ALL_1_ON_1_MESSAGES,
        &abprops::web::WA_NCT_TOKEN_SEND_ENABLED,
    ];
    NodeBuilder::new("props")
        .attr("protocol", "1")
        .attr("hash", "1")
        .attr("refresh", "86400")
        .attr("refresh_id", "1")
        .children(switches.map(on))
        .build()
}

fn media_conn() -> Node {
    let host = NodeBuilder::new("host")
        .attr("hostname", HOST)
        .attr("type", "primary")
        .build();
    NodeBuilder::new("media_conn")
        .attr("auth", "loopback")
        .attr("ttl", "3600")
        .attr("auth_ttl", "3600")
        .attr("max_buckets", "12")
        .children([host])
        .build()
}

fn privacy() -> Node {
    let category = |name: &'static str| {
        NodeBuilder::new("category")
            .attr("name", name)
            .attr("value", "all")
            .build()
    };
    let names = [
        "last",
        "online",
        "profile",
        "status",
        "groupadd",
        "calladd",
        "readreceipts",
    ];
    NodeBuilder::new("privacy").children(names.map(category)).build()
}

/// The app state is empty here: every collection is at version 0.
fn app_state(query: &Node) -> Node {
    let collections = query
        .get_optional_child("sync")
        .and_then(Node::children)
        .unwrap_or_default();
    let answers = collections.iter().map(|collection| {
        NodeBuilder::new("collection")
            .attr("name", text(collection, "name"))
            .attr("version", "0")
            .build()
    });
    NodeBuilder::new("sync").children(answers).build()
}
