//! What happens to a server beside its campaigns: people who look, bursts of messages and leads, devices that come and go.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use wa_core::id::{CampaignId, DeviceId, UserId};
use wa_core::seed::{ChaCha8Rng, Seed};
use wa_core::time::{Clock, Monotonic};

use super::Failure;
use super::fleet::{ChurnCounts, Fleet};
use super::gauges::{Gauges, Times};
use super::options::{BenchArgs, BurstOf};
use crate::loopback::{GatewayDevice, Vendor, http_client};
use crate::password;

/// How often somebody looks.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For how long a device that goes offline stays so.
const OFFLINE_FOR: Duration = Duration::from_secs(5);
/// Calls of a burst that are under way at once.
const BURST_AT_ONCE: usize = 16;

/// A client of the server under load.
#[derive(Clone)]
pub(super) struct Caller {
    http: reqwest::Client,
    base: String,
    cookie: Option<String>,
}

impl Caller {
    /// Logs in.
    pub async fn login(base: &str, login: &str, secret: &SecretString) -> Result<Self, Failure> {
        let anybody = Self {
            http: http_client(),
            base: base.to_owned(),
            cookie: None,
        };
        let body = json!({"login": login, "password": secret.expose_secret()});
        let answer = anybody.request(Method::POST, "/api/login").json(&body).send().await?;
        let cookie = answer.error_for_status_ref()?.headers().get("set-cookie");
        let cookie = cookie
            .and_then(|value| value.to_str().ok())
            .ok_or("the login sets no cookie")?;
        let cookie = cookie.split(';').next().map(str::to_owned);
        Ok(Self { cookie, ..anybody })
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        }
    }
}

/// What came of calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    taken: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
}

/// How many calls came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CallCounts {
    /// Answered with success.
    pub taken: u64,
    /// Answered with an error.
    pub refused: u64,
    /// Not answered within 10 s.
    pub unanswered: u64,
}

impl Calls {
    pub fn counts(&self) -> CallCounts {
        CallCounts {
            taken: self.taken.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            unanswered: self.unanswered.load(Ordering::Relaxed),
        }
    }

    fn add(&self, answer: Option<bool>) {
        let count = match answer {
            Some(true) => &self.taken,
            Some(false) => &self.refused,
            None => &self.unanswered,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a load is made with.
pub(super) struct Parts {
    pub caller: Caller,
    pub clock: Arc<dyn Clock>,
    pub gauges: Arc<Gauges>,
    pub args: BenchArgs,
    pub user_id: UserId,
    pub campaigns: Vec<CampaignId>,
    pub fleet: Fleet,
}

/// The load beside the campaigns.
pub(super) struct Load {
    with: Parts,
    looks: Calls,
    bursts: Calls,
}

impl Load {
    pub fn new(with: Parts) -> Self {
        Self {
            with,
            looks: Calls::default(),
            bursts: Calls::default(),
        }
    }

    /// Makes the load until it is told to stop; what is under way then is waited for, and every device is online again.
    pub async fn run(&self, stopped: watch::Receiver<bool>) {
        let changes = self.change(stopped.clone());
        futures::join!(self.look(stopped.clone()), self.burst(stopped), changes);
    }

    /// What people looked at.
    pub fn looks(&self) -> CallCounts {
        self.looks.counts()
    }

    /// What came in bursts.
    pub fn bursts(&self) -> CallCounts {
        self.bursts.counts()
    }

    /// How often devices changed.
    pub fn churn(&self) -> ChurnCounts {
        self.with.fleet.churn()
    }

    /// Sends a request and waits for the whole answer.
    async fn call(&self, request: reqwest::RequestBuilder, times: &Times, calls: &Calls) {
        let began = self.with.clock.monotonic();
        let answer = async {
            let response = request.send().await?;
            let status = response.status();
            response.bytes().await.map(|_| status.is_success())
        };
        let answer = answer.await.ok();
        if answer.is_some() {
            times.record(self.with.clock.monotonic().since(began));
        }
        calls.add(answer);
    }

    /// Waits; `false` when it is time to stop.
    async fn pause(&self, until: Monotonic, stopped: &mut watch::Receiver<bool>) -> bool {
        tokio::select! {
            biased;
            // An error means that whoever would tell is gone.
            _ = stopped.wait_for(|stop| *stop) => false,
            () = self.with.clock.sleep_until(until) => true,
        }
    }

    /// What people look at, one after the other.
    async fn look(&self, mut stopped: watch::Receiver<bool>) {
        let campaigns = self.with.campaigns.iter().cycle();
        for (turn, campaign) in campaigns.enumerate() {
            let began = self.with.clock.monotonic();
            let path = match turn % 6 {
                0 => format!("/api/campaigns/{campaign}/progress"),
                1 => "/api/messages".to_owned(),
                2 => "/api/campaigns".to_owned(),
                3 => "/api/devices".to_owned(),
                4 => "/api/workers/status".to_owned(),
                _ => "/health".to_owned(),
            };
            let request = self.with.caller.request(Method::GET, &path);
            self.call(request, &self.with.gauges.api, &self.looks).await;
            if !self.pause(began + LOOK_EVERY, &mut stopped).await {
                return;
            }
        }
    }

    async fn burst(&self, mut stopped: watch::Receiver<bool>) {
        let args = &self.with.args;
        if args.burst == 0 {
            return;
        }
        let mut rng = Seed::from_number(args.seed).rng(b"bursts", "load generator");
        let mut number = 0;
        loop {
            let began = self.with.clock.monotonic();
            let numbers = number..number + u64::from(args.burst);
            number = numbers.end;
            let calls: Vec<_> = numbers
                .filter_map(|number| Some((number, self.with.fleet.pick(&mut rng)?)))
                .map(|(number, device)| self.one_of_a_burst(number, device))
                .collect();
            futures::stream::iter(calls)
                .buffer_unordered(BURST_AT_ONCE)
                .collect::<()>()
                .await;
            if !self.pause(began + args.burst_every, &mut stopped).await {
                return;
            }
        }
    }

    async fn one_of_a_burst(&self, number: u64, device: DeviceId) {
        // No lead of a campaign has a number of this network.
        let phone = format!("+60112{number:07}");
        let (path, body) = match self.with.args.burst_of {
            BurstOf::Direct => (
                "/api/messages/send",
                json!({"device_id": device, "phone": phone, "message": "Pesanan anda sudah kami terima."}),
            ),
            BurstOf::Leads => (
                "/webhook/lead/create",
                json!({"name": "Aminah", "phone": phone, "user_id": self.with.user_id, "device_id": device}),
            ),
        };
        let request = self.with.caller.request(Method::POST, path).json(&body);
        self.call(request, &self.with.gauges.burst, &self.bursts).await;
    }

    /// Adds a device, takes one offline for a while, deletes one, and so on.
    async fn change(&self, mut stopped: watch::Receiver<bool>) {
        let args = &self.with.args;
        if args.churn == 0 {
            return;
        }
        let mut rng = Seed::from_number(args.seed).rng(b"churn", "load generator");
        let every = Duration::from_secs(60) / args.churn;
        let mut away: VecDeque<(Monotonic, DeviceId)> = VecDeque::new();
        let mut next_at = self.with.clock.monotonic() + every;
        let mut turn = 0_u64;
        loop {
            let back_at = away.front().map(|(at, _)| *at);
            let until = back_at.map_or(next_at, |at| at.min(next_at));
            if !self.pause(until, &mut stopped).await {
                break;
            }
            let now = self.with.clock.monotonic();
            while let Some((_, device)) = away.pop_front_if(|(at, _)| *at <= now) {
                self.with.fleet.set_connected(device, true);
            }
            if next_at > now {
                continue;
            }
            next_at = next_at + every;
            match turn % 3 {
                0 => self.add(turn).await,
                1 => {
                    if let Some(device) = self.with.fleet.pick(&mut rng) {
                        self.with.fleet.set_connected(device, false);
                        away.push_back((now + OFFLINE_FOR, device));
                    }
                }
                _ => self.delete(&mut rng).await,
            }
            turn += 1;
        }
        for (_, device) in away {
            self.with.fleet.set_connected(device, true);
        }
    }

    async fn add(&self, turn: u64) {
        let fleet = &self.with.fleet;
        let (vendor, platform, credential) = match turn % 2 {
            0 => (
                Vendor::Wablas,
                "wablas",
                format!("{}.{}", password::token(), password::token()),
            ),
            _ => (Vendor::Whacenter, "whacenter", password::token()),
        };
        let gateway = GatewayDevice::new(&credential, format!("MORE{turn}"), format!("60191{turn:06}"));
        fleet.introduce(vendor, gateway.clone());
        let body = json!({
            "name": format!("Added {turn}"), "platform": platform, "credential": credential, "base_url": fleet.base_url(vendor),
        });
        let request = self.with.caller.request(Method::POST, "/api/devices").json(&body);
        let answer = async { request.send().await?.json::<Value>().await }.await.ok();
        let id = answer.and_then(|answer| answer["results"]["id"].as_str()?.parse().ok());
        if let Some(id) = id {
            fleet.added(id, vendor, gateway);
        }
    }

    async fn delete(&self, rng: &mut ChaCha8Rng) {
        let Some(device) = self.with.fleet.take(rng) else {
            return;
        };
        let path = format!("/api/devices/{device}");
        let request = self.with.caller.request(Method::DELETE, &path);
        let answer = request.send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            self.with.fleet.deleted();
        }
    }
}
