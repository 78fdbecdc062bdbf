//! The server's memory and the ways through it; everything happens under one lock, one stanza at a time.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::mpsc;
use whatsapp_rust::wacore::libsignal::protocol::KeyPair;
use whatsapp_rust::wacore_binary::Node;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Jid, NodeBuilder};

use crate::account::{Account, DeviceRecord, Queued};
use crate::fault::{Kind, LoginFault, Moment, Script, StreamFault};
use crate::journal::{Journal, Seen};
use crate::keys::Keys;
use crate::media::MediaStore;
use crate::node::SERVER;
use crate::noise::{Established, Handshake};
use crate::options::Options;
use crate::stanza::pairing::{PendingCode, PendingPair, Registration};

/// What a connection is told to write.
pub(crate) enum Out {
    Stanza(Node),
    Close,
}

/// A connection whose handshake is done.
pub(crate) struct Link {
    pub(crate) out: mpsc::Sender<Out>,
    pub(crate) who: Option<(String, u16)>,
    pub(crate) noise: [u8; 32],
    pub(crate) registration: Option<Registration>,
    pub(crate) pairing: Option<PendingPair>,
}

/// All that the server remembers.
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    pub(crate) server_key: KeyPair,
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) lids: HashMap<String, String>,
    pub(crate) links: HashMap<u64, Link>,
    pub(crate) references: HashMap<String, u64>,
    pub(crate) codes: HashMap<String, PendingCode>,
    pub(crate) script: Script,
    pub(crate) journal: Journal,
    pub(crate) media: MediaStore,
    /// Goes up whenever something happens that somebody may wait for.
    pub(crate) changes: u64,
    next: u64,
}

/// Now in milliseconds since 1970, by the clock of the clients.
pub(crate) fn now_ms() -> i64 {
    whatsapp_rust::wacore::time::now_millis()
}

/// Now in seconds since 1970, by the clock of the clients.
pub(crate) fn now_s() -> i64 {
    now_ms().div_euclid(1000)
}

impl State {
    pub(crate) fn new(options: Options) -> Self {
        let keys = Keys::new(options.seed);
        Self {
            server_key: keys.server(),
            accounts: BTreeMap::new(),
            lids: HashMap::new(),
            links: HashMap::new(),
            references: HashMap::new(),
            codes: HashMap::new(),
            script: Script::default(),
            journal: Journal::new(options.journal_max),
            media: MediaStore::new(options.media_max_bytes),
            changes: 0,
            next: 0,
            keys,
            options,
        }
    }

    /// A number that was not given before.
    pub(crate) fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn record(&mut self, seen: Seen) {
        self.changes += 1;
        self.journal.push(now_ms(), seen);
    }

    /// The account with this phone number, made if it is not there.
    pub(crate) fn ensure_account(&mut self, phone: &str, name: &str) -> &mut Account {
        if !self.accounts.contains_key(phone) {
            let lid = self.keys.lid(phone);
            self.lids.insert(lid.clone(), phone.to_owned());
            let migrated = self.options.lid_migrated;
            let account = Account::new(phone.to_owned(), lid, name.to_owned(), migrated);
            self.accounts.insert(phone.to_owned(), account);
        }
        self.accounts.get_mut(phone).expect("the account was just made")
    }

    /// The account with this phone number and its phone, made if it is not there; a phone made here is `light`.
    pub(crate) fn ensure_phone(&mut self, phone: &str, name: &str, light: bool) {
        let has_phone = self
            .accounts
            .get(phone)
            .is_some_and(|account| account.devices.contains_key(&0));
        if !has_phone {
            let record = DeviceRecord::of(&self.keys.device(phone, 0), light);
            self.ensure_account(phone, name).devices.insert(0, record);
        } else if !light {
            let account = self.ensure_account(phone, name);
            account.name = name.to_owned();
            if let Some(device) = account.devices.get_mut(&0) {
                device.light = false;
            }
        }
    }

    /// The phone number of whoever has this address.
    pub(crate) fn phone_of(&self, jid: &Jid) -> Option<String> {
        if jid.is_lid() {
            self.lids.get(jid.user.as_str()).cloned()
        } else if jid.is_pn() {
            self.accounts
                .contains_key(jid.user.as_str())
                .then(|| jid.user.to_string())
        } else {
            None
        }
    }

    pub(crate) fn device(&mut self, phone: &str, number: u16) -> Option<&mut DeviceRecord> {
        self.accounts.get_mut(phone)?.devices.get_mut(&number)
    }

    /// The address of the device at the other end of a link, by phone number.
    pub(crate) fn address(&self, link: u64) -> Jid {
        match self.links.get(&link).and_then(|link| link.who.as_ref()) {
            Some((phone, device)) => Jid::pn_device(phone.as_str(), *device),
            None => Jid::pn(""),
        }
    }

    /// Writes a stanza to a connection; one that does not keep up is dropped.
    pub(crate) fn send(&mut self, link: u64, node: Node) {
        self.put(link, Out::Stanza(node));
    }

    /// Writes a stanza to a connection after a while.
    pub(crate) fn send_later(&mut self, link: u64, node: Node, after: Duration) {
        if let Some(link) = self.links.get(&link) {
            let out = link.out.clone();
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                // The client may be gone by then, as it may in the world.
                let _ = out.send(Out::Stanza(node)).await;
            });
        }
    }

    pub(crate) fn close(&mut self, link: u64) {
        self.put(link, Out::Close);
    }

    fn put(&mut self, id: u64, out: Out) {
        let full = self.links.get(&id).is_some_and(|link| link.out.try_send(out).is_err());
        if full {
            self.gone(id);
        }
    }

    /// Forgets a connection that has ended.
    pub(crate) fn gone(&mut self, id: u64) {
        let Some(link) = self.links.remove(&id) else { return };
        self.references.retain(|_, known| *known != id);
        self.codes.retain(|_, code| code.link != id);
        if let Some((phone, number)) = link.who {
            if let Some(device) = self.device(&phone, number)
                && device.link == Some(id)
            {
                device.link = None;
                device.active = false;
                device.available = false;
            }
            self.record(Seen::Disconnected {
                device: Jid::pn_device(phone, number),
            });
        }
    }

    /// Puts a stanza down for a device and writes it if the device is there; it stays until the device has
    /// acknowledged it.
    pub(crate) fn post(&mut self, phone: &str, number: u16, class: &'static str, id: &str, node: Node) -> bool {
        let max = self.options.offline_max;
        let Some(device) = self.device(phone, number) else {
            return false;
        };
        if device.light {
            return false;
        }
        if device.waiting.len() >= max {
            device.waiting.pop_front();
        }
        device.waiting.push_back(Queued {
            class,
            id: id.to_owned(),
            node: node.clone(),
        });
        let link = device.link.filter(|_| device.active);
        if let Some(link) = link {
            self.send(link, node);
        }
        link.is_some()
    }

    /// Takes an acknowledged stanza off what waits for a device.
    pub(crate) fn acknowledged(&mut self, phone: &str, number: u16, class: &str, id: &str) {
        if let Some(device) = self.device(phone, number)
            && let Some(place) = device
                .waiting
                .iter()
                .position(|queued| queued.class == class && queued.id == id)
        {
            device.waiting.remove(place);
            self.changes += 1;
        }
    }

    /// Lets a connection in, refuses it, or offers it to be linked.
    pub(crate) fn admit(&mut self, out: mpsc::Sender<Out>, established: &Established) -> u64 {
        let id = self.next();
        self.links.insert(
            id,
            Link {
                out,
                who: None,
                noise: established.client_static,
                registration: None,
                pairing: None,
            },
        );
        match established.payload.username {
            None => self.offer_pairing(id, &established.payload),
            Some(phone) => self.log_in(id, &phone.to_string(), established),
        }
        id
    }

    fn log_in(&mut self, id: u64, phone: &str, established: &Established) {
        let number = established
            .payload
            .device
            .and_then(|number| u16::try_from(number).ok())
            .unwrap_or(0);
        let fault = self.script.at(Moment::Login { phone, device: number });
        if let Some(Kind::Login(fault)) = fault {
            return self.refuse(id, phone, number, &fault);
        }
        self.admit_seeded(phone, number, &established.client_static);
        let known = self
            .device(phone, number)
            .is_some_and(|device| device.noise == established.client_static);
        if !known {
            return self.refuse(id, phone, number, &LoginFault::reason(401));
        }
        self.welcome(id, phone, number, established.handshake);
    }

    /// Makes the device that logs in, if its key is the one that the seed gives it.
    fn admit_seeded(&mut self, phone: &str, number: u16, noise: &[u8; 32]) {
        let unknown = self
            .accounts
            .get(phone)
            .is_none_or(|account| !account.devices.contains_key(&number));
        if self.options.admit_seeded && unknown && number < 100 {
            let device = self.keys.device(phone, number);
            if crate::keys::public_bytes(&device.noise_key) == *noise {
                self.ensure_phone(phone, "", true);
                self.add_device(phone, number, DeviceRecord::of(&device, false));
            }
        }
    }

    pub(crate) fn add_device(&mut self, phone: &str, number: u16, record: DeviceRecord) {
        let account = self.ensure_account(phone, "");
        account.next_device = account.next_device.max(number + 1);
        account.devices.insert(number, record);
    }

    fn refuse(&mut self, id: u64, phone: &str, number: u16, fault: &LoginFault) {
        let mut failure = NodeBuilder::new("failure")
            .attr("reason", fault.reason.to_string())
            .attr("location", "lb");
        if let Some(code) = fault.code {
            failure = failure.attr("code", code.to_string());
        }
        if let Some(expire_s) = fault.expire_s {
            failure = failure.attr("expire", expire_s.to_string());
        }
        if let Some(message) = &fault.message {
            failure = failure.attr("message", message.as_str());
        }
        self.send(id, failure.build());
        self.close(id);
        self.record(Seen::Refused {
            device: Jid::pn_device(phone, number),
            reason: fault.reason,
        });
    }

    fn welcome(&mut self, id: u64, phone: &str, number: u16, handshake: Handshake) {
        let account = self.accounts.get_mut(phone).expect("a known device has an account");
        let lid = account.lid(number);
        let device = account.devices.get_mut(&number).expect("the device is known");
        let before = device.link.replace(id);
        device.active = false;
        device.light = false;
        if let Some(link) = self.links.get_mut(&id) {
            link.who = Some((phone.to_owned(), number));
        }
        if let Some(before) = before {
            self.end_stream(before, StreamFault::Replaced);
        }
        self.record(Seen::Connected {
            device: Jid::pn_device(phone, number),
            handshake,
        });
        let success = NodeBuilder::new("success")
            .attr("t", now_s())
            .attr("props", "27")
            .attr("location", "lb")
            .attr("lid", lid)
            .build();
        self.send(id, success);
    }

    /// A device asks to be active: it gets what waits for it.
    pub(crate) fn activate(&mut self, link: u64) {
        let Some((phone, number)) = self.links.get(&link).and_then(|link| link.who.clone()) else {
            return;
        };
        let Some(device) = self.device(&phone, number) else {
            return;
        };
        device.active = true;
        let backlog: Vec<Node> = device
            .waiting
            .iter()
            .map(|queued| {
                let mut node = queued.node.clone();
                node.attrs.insert("offline", "0");
                node
            })
            .collect();
        let messages = device.waiting.iter().filter(|queued| queued.class == "message").count();
        let receipts = device.waiting.iter().filter(|queued| queued.class == "receipt").count();
        let notifications = device.waiting.len() - messages - receipts;
        let count = backlog.len();
        if count > 0 {
            let preview = NodeBuilder::new("offline_preview")
                .attr("count", count.to_string())
                .attr("message", messages.to_string())
                .attr("notification", notifications.to_string())
                .attr("receipt", receipts.to_string())
                .attr("appdata", "0")
                .build();
            self.send(link, bulletin(preview));
        }
        for node in backlog {
            self.send(link, node);
        }
        let done = NodeBuilder::new("offline").attr("count", count.to_string()).build();
        self.send(link, bulletin(done));
        self.record(Seen::Active {
            device: Jid::pn_device(phone, number),
        });
    }

    pub(crate) fn end_stream(&mut self, link: u64, fault: StreamFault) {
        let error = |code: &str, child: Option<Node>| {
            let error = NodeBuilder::new("stream:error").attr("code", code.to_owned());
            match child {
                Some(child) => error.children([child]).build(),
                None => error.build(),
            }
        };
        let conflict = |kind: &'static str| NodeBuilder::new("conflict").attr("type", kind).build();
        match fault {
            StreamFault::Replaced => self.send(link, error("409", Some(conflict("replaced")))),
            StreamFault::DeviceRemoved => self.send(link, error("401", Some(conflict("device_removed")))),
            StreamFault::Code(code) => self.send(link, error(&code.to_string(), None)),
            StreamFault::Cut => {}
        }
        if fault != StreamFault::Code(429) {
            self.close(link);
        }
    }

    /// Handles what a client wrote.
    pub(crate) fn on_stanza(&mut self, link: u64, node: &Node) {
        if !self.links.contains_key(&link) {
            return;
        }
        match node.tag.as_ref() {
            "iq" => self.on_iq(link, node),
            "message" => self.on_message(link, node),
            "receipt" => self.on_receipt(link, node),
            "ack" => self.on_ack(link, node),
            "chatstate" => self.on_chat_state(link, node),
            "presence" => self.on_presence(link, node),
            _ => {}
        }
    }

    fn offer_pairing(&mut self, link: u64, payload: &wa::ClientPayload) {
        let Some(registration) = Registration::read(payload) else {
            return self.close(link);
        };
        let references: Vec<String> = (0..6).map(|_| format!("loopback-{}", self.next())).collect();
        for reference in &references {
            self.references.insert(reference.clone(), link);
        }
        if let Some(link) = self.links.get_mut(&link) {
            link.registration = Some(registration);
        }
        let device = NodeBuilder::new("pair-device")
            .children(
                references
                    .iter()
                    .map(|reference| crate::node::with_bytes("ref", reference.as_bytes())),
            )
            .build();
        let id = format!("pair-{}", self.next());
        let offer = NodeBuilder::new("iq")
            .attr("from", SERVER)
            .attr("type", "set")
            .attr("id", id)
            .attr("xmlns", "md")
            .children([device])
            .build();
        self.send(link, offer);
        self.record(Seen::PairingOffered {
            reference: references[0].clone(),
        });
    }

    /// Sends a notification to all devices of an account but one.
    pub(crate) fn notify_all(
        &mut self,
        phone: &str,
        except: Option<u16>,
        kind: &'static str,
        from: &Jid,
        child: &Node,
    ) {
        let numbers: Vec<u16> = self
            .accounts
            .get(phone)
            .map(|account| account.devices.keys().copied().collect())
            .unwrap_or_default();
        let numbers = numbers.into_iter().filter(|number| Some(*number) != except);
        for number in numbers {
            let id = format!("n{}", self.next());
            let node = NodeBuilder::new("notification")
                .attr("from", from)
                .attr("type", kind)
                .attr("id", id.as_str())
                .attr("t", now_s())
                .children([child.clone()])
                .build();
            self.post(phone, number, "notification", &id, node);
        }
    }
}

fn bulletin(child: Node) -> Node {
    NodeBuilder::new("ib").attr("from", SERVER).children([child]).build()
}
