//! The part of the demonstration over WhatsApp Web: devices that were linked before, a simulated WhatsApp, and people whose phones
//! decrypt what they get, read it, answer after a while and sometimes want no more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use rand::RngExt as _;
use tokio::task::JoinSet;
use wa_core::id::{DeviceId, IdSource};
use wa_core::seed::Seed;
use wa_core::store::{AppStore, StoreError};
use wa_core::time::{Clock, SystemClock, Timestamp};
use wa_loopback::{Answer, Listener, Loopback, MessageFault, Options, Person, Rule, RuleId};

use super::stage::{Stage, StagedLink};
use crate::web::loopback::{LoopbackPorts, link};

/// Most phones that connect at a time.
const PHONES_AT_ONCE: usize = 16;
/// Of a thousand who read a message, how many ask for no more.
const STOP: u32 = 8;
/// Of a thousand, how many answer or ask for no more.
const REPLY: u32 = 60;
/// Of a thousand, how many read it at all.
const READ: u32 = 550;
/// How long a person waits at most before each of these.
const STEP_MAX: Duration = Duration::from_millis(4_000);
/// How long somebody waits for a message; nobody's life is longer than the demonstration.
const LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long what was sent last may be on its way.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// A simulated WhatsApp with those who are on it.
pub(super) struct Linked {
    whatsapp: Loopback,
    _listener: Listener,
    ports: LoopbackPorts,
    faults: Vec<RuleId>,
    people: BTreeMap<String, Arc<Person>>,
    lives: JoinSet<()>,
}

impl Linked {
    /// Starts it, without anybody; it answers some messages not at all, or by cutting the connection.
    ///
    /// # Errors
    /// No ports can be had.
    pub async fn start(seed: u64) -> io::Result<Self> {
        let mut options = Options::new();
        options.seed = seed;
        let whatsapp = Loopback::start(options);
        let listener = whatsapp.listen().await?;
        let ports = LoopbackPorts {
            clients: listener.websocket_port(),
            media: listener.media_port(),
        };
        let faults = [
            Rule::message(MessageFault::SwallowAck).nth(20),
            Rule::message(MessageFault::CutAfter).nth(60),
            Rule::message(MessageFault::CutBefore).nth(100),
        ];
        let faults = faults.map(|rule| whatsapp.fault(rule)).to_vec();
        Ok(Self {
            whatsapp,
            _listener: listener,
            ports,
            faults,
            people: BTreeMap::new(),
            lives: JoinSet::new(),
        })
    }

    /// Where it listens.
    pub const fn ports(&self) -> LoopbackPorts {
        self.ports
    }

    /// Links the devices of a stage, before a server owns them.
    ///
    /// # Errors
    /// As the store's.
    pub async fn link(&self, store: &Arc<dyn AppStore>, ids: &IdSource, stage: &Stage) -> Result<(), StoreError> {
        let devices = stage.linked.iter().map(|device| (device.id, device.digits.as_str()));
        link(&self.whatsapp, store, ids, devices).await.map(drop)
    }

    /// Brings the leads of linked devices to WhatsApp, each with a phone of their own that is connected.
    ///
    /// # Errors
    /// A phone does not connect.
    pub async fn bring(&mut self, stage: &Stage, seed: u64) -> Result<(), wa_loopback::PersonError> {
        let ids: BTreeSet<DeviceId> = stage.linked.iter().map(|device| device.id).collect();
        for lead in stage.leads.iter().filter(|lead| ids.contains(&lead.device_id)) {
            if !self.people.contains_key(&lead.digits) {
                let person = self.whatsapp.person(&lead.digits, "").await?;
                self.people.insert(lead.digits.clone(), Arc::new(person));
            }
        }
        let mut connects =
            futures::stream::iter(self.people.values().map(|person| person.connect())).buffer_unordered(PHONES_AT_ONCE);
        while let Some(connected) = connects.next().await {
            connected?;
        }
        drop(connects);
        let seed = Seed::from_number(seed);
        for person in self.people.values() {
            self.lives.spawn(live(Arc::clone(person), seed.clone()));
        }
        Ok(())
    }

    /// Lets somebody write to a device; false when that does not go.
    pub async fn write(&self, from: &str, device: &StagedLink, text: &str) -> bool {
        match self.people.get(from) {
            Some(person) => person.send_text(&device.digits, text).await.is_ok(),
            None => false,
        }
    }

    /// How many different messages of devices WhatsApp has taken.
    pub fn recorded(&self) -> u64 {
        let sent = self.whatsapp.sent();
        let taken = sent.iter().filter(|message| {
            let to_a_person = !message.peer && message.from.device > 0;
            to_a_person && matches!(message.answer, Answer::Acked | Answer::Swallowed)
        });
        taken.map(|message| &message.id).collect::<BTreeSet<_>>().len() as u64
    }

    /// How often something went wrong on purpose.
    pub fn faults(&self) -> u64 {
        self.faults.iter().map(|rule| self.whatsapp.fired(*rule)).sum()
    }

    /// How many people there are.
    pub fn people(&self) -> usize {
        self.people.len()
    }

    /// What people have decrypted: number, text, and its place in the order in which they got it.
    pub fn messages(&self) -> Vec<(String, String, Timestamp)> {
        let of = |(digits, person): (&String, &Arc<Person>)| {
            let inbox = person.inbox().into_iter().filter(|received| !received.from_me);
            let texts = inbox.map(|received| received.text().unwrap_or_default().to_owned());
            let digits = digits.clone();
            (0..)
                .zip(texts)
                .map(move |(place, text)| (digits.clone(), text, Timestamp::from_millis(place)))
                .collect::<Vec<_>>()
        };
        self.people.iter().flat_map(of).collect()
    }

    /// The messages that people have decrypted, when all that WhatsApp has taken has arrived or is overdue.
    pub async fn settled(&self, clock: &SystemClock) -> Vec<(String, String, Timestamp)> {
        let until = clock.monotonic() + ON_ITS_WAY;
        loop {
            let messages = self.messages();
            let now = clock.monotonic();
            if messages.len() as u64 >= self.recorded() || now >= until {
                return messages;
            }
            clock.sleep_until(now + Duration::from_millis(100)).await;
        }
    }
}

/// Reads, answers and stops as people do.
async fn live(person: Arc<Person>, seed: Seed) {
    let mut rng = seed.rng(person.phone().as_bytes(), "demo life");
    let mut pause = || STEP_MAX.mul_f64(rng.random_range(0.05..1.0));
    let pauses = [pause(), pause()];
    while let Ok(received) = person.next_message(LIFE).await {
        let course = rng.random_range(0..1_000_u32);
        if received.from_me || course >= READ {
            continue;
        }
        tokio::time::sleep(pauses[0]).await;
        // A phone that is offline just now reads nothing and writes nothing.
        let _ = person.mark_read(&received).await;
        let text = match course {
            0..STOP => "STOP",
            STOP..REPLY => "Terima kasih, saya berminat",
            _ => continue,
        };
        tokio::time::sleep(pauses[1]).await;
        let _ = person.reply(&received, text).await;
    }
}
