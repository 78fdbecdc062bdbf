//! A campaign on a data folder, with the gateways that it is sent through, as a server that starts there finds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::SecretString;
use wa_core::domain::access::{Role, User, UserSettings};
use wa_core::domain::message::{Message, MessageState};
use wa_core::id::{IdSource, UserId};
use wa_core::store::AppStore;
use wa_core::time::{Clock, SystemClock};
use wa_server_example::demo::stage::{self, Gateways, Scale, Stage};
use wa_server_example::loopback::{
    Accepted, FaultShares, GatewayScript, Latency, LoopbackGateway, RunningGateway, Vendor,
};
use wa_server_example::password::Passwords;
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use crate::server_process::{DataDir, ServerProcess};
use crate::support::PASSWORD;

/// The login of the user whose campaign it is.
pub const LOGIN: &str = "ann";

/// How a play is set.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    pub devices: usize,
    pub leads: usize,
    pub seed: u64,
    pub faults: FaultShares,
}

/// A campaign that starts 2 s after it was set, at gateways that take 5 to 500 ms and report 1 s late.
pub struct Play {
    pub data: DataDir,
    pub wablas: RunningGateway,
    pub whacenter: RunningGateway,
    pub user_id: UserId,
    pub stage: Stage,
}

impl Play {
    /// Sets it on a file, with leads that are all different people.
    pub async fn set(setting: Setting) -> Self {
        let data = DataDir::new();
        let store = SqliteStore::open(SqliteOptions::file(data.database())).await.unwrap();
        let play = Self::set_on(Arc::new(store.clone()), data, setting).await;
        store.close().await;
        play
    }

    /// Sets it on a store.
    pub async fn set_on(store: Arc<dyn AppStore>, data: DataDir, setting: Setting) -> Self {
        let script = |vendor| {
            GatewayScript::new(vendor, setting.seed)
                .latency(Latency::between(5, 500))
                .faults(setting.faults)
        };
        let start = |vendor| LoopbackGateway::start(script(vendor));
        let wablas = start(Vendor::Wablas).await.unwrap();
        let whacenter = start(Vendor::Whacenter).await.unwrap();
        let urls = Gateways {
            wablas: wablas.base_url(),
            whacenter: whacenter.base_url(),
        };
        let (ids, now) = (IdSource::from_entropy(), SystemClock::new().wall());
        let user = User {
            id: UserId::new(&ids, now),
            login: LOGIN.to_owned(),
            name: "Ann".to_owned(),
            role: Role::User,
            password_hash: Passwords::new().hash(SecretString::from(PASSWORD)).await,
            active: true,
            settings: UserSettings::default(),
            created_at: now,
            updated_at: now,
            version: 1,
        };
        store.insert_user(&user).await.unwrap();
        let scale = Scale::of(setting.devices, setting.leads, setting.seed).with_distinct_people();
        let stage = stage::set(&store, &ids, user.id, scale, &urls, now).await.unwrap();
        for (gateway, vendor) in [(&wablas, Vendor::Wablas), (&whacenter, Vendor::Whacenter)] {
            let devices = stage.devices.iter().filter(|device| device.vendor == vendor);
            gateway.set_script(script(vendor).devices(devices.map(|device| device.at_gateway(None))));
        }
        Self {
            data,
            wablas,
            whacenter,
            user_id: user.id,
            stage,
        }
    }

    /// Starts a server on it.
    pub async fn server(&self) -> ServerProcess {
        self.server_with(&[]).await
    }

    /// Starts a server on it, with settings beside or in place of its own.
    pub async fn server_with(&self, more: &[(&str, &str)]) -> ServerProcess {
        let hosts = format!("{},{}", self.wablas.address(), self.whacenter.address());
        let mut settings = vec![
            ("PACING", "unpaced"),
            ("RECONCILE_AFTER", "3s"),
            ("RECONCILE_EVERY", "2s"),
            ("ERROR_RATE_PERCENT", "0"),
            ("STEP_WAIT_MIN", "1s"),
            ("GATEWAY_HOSTS", &hosts),
        ];
        settings.extend_from_slice(more);
        ServerProcess::start(&self.data, &settings).await
    }

    /// At which vendor's device a message is.
    pub fn vendor_of(&self, message: &Message) -> Vendor {
        let devices = &self.stage.devices;
        let device = devices.iter().find(|device| Some(device.id) == message.device_id);
        device.map_or(Vendor::Whacenter, |device| device.vendor)
    }

    /// Checks that everybody got one message where the gateway can be asked, and nobody two anywhere; says how many messages stay
    /// unknown.
    pub fn check(&self, messages: &[Message]) -> usize {
        let (wablas, whacenter) = (self.wablas.messages(), self.whacenter.messages());
        let (at_wablas, at_whacenter) = (per_number(&wablas), per_number(&whacenter));
        let mut unknown = 0;
        for message in messages {
            let phone = message.phone.unwrap();
            let vendor = self.vendor_of(message);
            let got = match vendor {
                Vendor::Wablas => at_wablas.get(phone.digits()),
                Vendor::Whacenter => at_whacenter.get(phone.digits()),
            };
            let got = got.copied().unwrap_or(0);
            match (vendor, message.state) {
                (_, MessageState::Sent) => assert_eq!(got, 1, "{message:?} is sent"),
                (Vendor::Whacenter, MessageState::Unknown) => {
                    unknown += 1;
                    assert!(got <= 1, "{message:?} is doubled");
                }
                _ => panic!("{message:?} got {got} messages"),
            }
        }
        unknown
    }

    /// How many messages the gateways have recorded.
    pub fn recorded(&self) -> u64 {
        self.wablas.counts().recorded + self.whacenter.counts().recorded
    }

    /// The messages that the gateways have recorded.
    pub fn messages(&self) -> Vec<Accepted> {
        let mut messages = self.wablas.messages();
        messages.extend(self.whacenter.messages());
        messages
    }
}

/// How many messages each number got.
pub fn per_number(messages: &[Accepted]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for message in messages {
        *counts.entry(message.number.as_str()).or_default() += 1;
    }
    counts
}
