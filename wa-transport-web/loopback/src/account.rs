//! What the server knows of an account and of its devices.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use whatsapp_rust::Jid;
use whatsapp_rust::wacore::store::device::{Device, account_serde};
use whatsapp_rust::wacore_binary::Node;

use crate::keys::public_bytes;
use crate::restriction::{NewChatCap, Timelock};

/// A stanza that waits for a device, or for its acknowledgement.
pub(crate) struct Queued {
    pub(crate) class: &'static str,
    pub(crate) id: String,
    pub(crate) node: Node,
}

/// A signed prekey as it was uploaded.
#[derive(Clone)]
pub(crate) struct SignedPrekey {
    pub(crate) id: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

/// A device of an account.
pub(crate) struct DeviceRecord {
    pub(crate) noise: [u8; 32],
    pub(crate) identity: [u8; 32],
    pub(crate) registration: Vec<u8>,
    pub(crate) signed: SignedPrekey,
    pub(crate) one_time: VecDeque<(Vec<u8>, Vec<u8>)>,
    /// What phone and device signed of one another; the phone itself has none.
    pub(crate) adv: Option<Vec<u8>>,
    /// Whether it never connects: what it is sent is counted and thrown away.
    pub(crate) light: bool,
    pub(crate) link: Option<u64>,
    pub(crate) active: bool,
    pub(crate) available: bool,
    pub(crate) waiting: VecDeque<Queued>,
}

impl DeviceRecord {
    /// The record of a device whose keys are known from its own store.
    pub(crate) fn of(device: &Device, light: bool) -> Self {
        Self {
            noise: public_bytes(&device.noise_key),
            identity: public_bytes(&device.identity_key),
            registration: device.registration_id.to_be_bytes().to_vec(),
            signed: SignedPrekey {
                id: device.signed_pre_key_id.to_be_bytes()[1..].to_vec(),
                value: public_bytes(&device.signed_pre_key).to_vec(),
                signature: device.signed_pre_key_signature.to_vec(),
            },
            one_time: VecDeque::new(),
            adv: device.account.as_deref().map(account_serde::to_bytes),
            light,
            link: None,
            active: false,
            available: false,
            waiting: VecDeque::new(),
        }
    }
}

/// A number that is on WhatsApp.
pub(crate) struct Account {
    pub(crate) phone: String,
    pub(crate) lid: String,
    pub(crate) name: String,
    pub(crate) lid_migrated: bool,
    pub(crate) devices: BTreeMap<u16, DeviceRecord>,
    /// The number of the next linked device; numbers are never given twice.
    pub(crate) next_device: u16,
    /// Who wrote to this account: to them its messages are not cold.
    pub(crate) heard_from: HashSet<String>,
    /// Whom this account wrote to.
    pub(crate) wrote_to: HashSet<String>,
    pub(crate) timelock: Option<Timelock>,
    pub(crate) cap: Option<NewChatCap>,
    pub(crate) query_limits: HashMap<String, QueryLimit>,
    /// Ids of messages that were delivered, to know them when they come again.
    sent_ids: HashSet<String>,
    sent_order: VecDeque<String>,
}

/// How many queries of a namespace an account may make in a time.
pub(crate) struct QueryLimit {
    pub(crate) max: usize,
    pub(crate) every_ms: i64,
    pub(crate) at_ms: VecDeque<i64>,
}

impl Account {
    pub(crate) fn new(phone: String, lid: String, name: String, lid_migrated: bool) -> Self {
        Self {
            phone,
            lid,
            name,
            lid_migrated,
            devices: BTreeMap::new(),
            next_device: 1,
            heard_from: HashSet::new(),
            wrote_to: HashSet::new(),
            timelock: None,
            cap: None,
            query_limits: HashMap::new(),
            sent_ids: HashSet::new(),
            sent_order: VecDeque::new(),
        }
    }

    pub(crate) fn pn(&self, device: u16) -> Jid {
        Jid::pn_device(self.phone.as_str(), device)
    }

    pub(crate) fn lid(&self, device: u16) -> Jid {
        Jid::lid_device(self.lid.as_str(), device)
    }

    /// Notes the id of a delivered message; false if it was there before.
    pub(crate) fn first_time(&mut self, id: &str, max: usize) -> bool {
        if !self.sent_ids.insert(id.to_owned()) {
            return false;
        }
        self.sent_order.push_back(id.to_owned());
        if self.sent_order.len() > max
            && let Some(oldest) = self.sent_order.pop_front()
        {
            self.sent_ids.remove(&oldest);
        }
        true
    }

    pub(crate) fn was_sent(&self, id: &str) -> bool {
        self.sent_ids.contains(id)
    }

    /// The linked devices, without the phone.
    pub(crate) fn companions(&self) -> Vec<u16> {
        self.devices.keys().copied().filter(|number| *number > 0).collect()
    }
}
