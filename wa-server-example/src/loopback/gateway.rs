//! A running loopback gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use wa_core::seed::Seed;
use wa_core::time::{Clock, SystemClock, Timestamp};

use super::callbacks::{Callbacks, Inbound};
use super::cut::{Cut, CuttableListener};
use super::ledger::{Accepted, GatewayCounts, Ledger, Progress};
use super::script::{Course, Fault, GatewayDevice, GatewayScript, Vendor};
use super::{control, wablas, whacenter};

/// Largest request in bytes: a picture of 2 MB in base64, form-encoded, and its text.
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Starts gateways on 127.0.0.1.
#[derive(Debug)]
pub struct LoopbackGateway;

impl LoopbackGateway {
    /// Starts a gateway on a free port.
    ///
    /// # Errors
    /// No port can be had.
    pub async fn start(script: GatewayScript) -> std::io::Result<RunningGateway> {
        Self::start_at(script, 0).await
    }

    /// Starts a gateway on a port; 0 for a free one.
    ///
    /// # Errors
    /// The port cannot be had.
    pub async fn start_at(script: GatewayScript, port: u16) -> std::io::Result<RunningGateway> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let vendor = script.vendor;
        let state = Arc::new(State {
            script: RwLock::new(Arc::new(script)),
            ledger: Mutex::new(Ledger::default()),
            clock: SystemClock::new(),
            callbacks: Callbacks::new(),
        });
        let routes = match vendor {
            Vendor::Wablas => wablas::routes(),
            Vendor::Whacenter => whacenter::routes(),
        };
        let app = Router::new()
            .merge(routes)
            .merge(control::routes())
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .with_state(Arc::clone(&state))
            .into_make_service_with_connect_info::<Cut>();
        let serving = tokio::spawn(async move {
            // Only ends with the task.
            let _ = axum::serve(CuttableListener(listener), app).await;
        });
        Ok(RunningGateway {
            address,
            state,
            serving,
        })
    }
}

/// A running gateway; dropping it closes its port.
#[derive(Debug)]
pub struct RunningGateway {
    address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

impl RunningGateway {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for devices on it.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that it recorded, in order.
    #[must_use]
    pub fn messages(&self) -> Vec<Accepted> {
        self.messages_from(0)
    }

    /// What it recorded from a place on, in order; places count from 0.
    #[must_use]
    pub fn messages_from(&self, place: usize) -> Vec<Accepted> {
        self.state.ledger().page(place, usize::MAX).to_vec()
    }

    /// The newest `count` that it recorded, the newest first.
    #[must_use]
    pub fn newest(&self, count: usize) -> Vec<Accepted> {
        let ledger = self.state.ledger();
        let page = ledger.page(0, usize::MAX);
        page.iter().rev().take(count).cloned().collect()
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> GatewayCounts {
        self.state.ledger().counts.clone()
    }

    /// Changes what it does from now on; the vendor stays.
    pub fn set_script(&self, script: GatewayScript) {
        self.state.set_script(script);
    }

    /// Lets a person write to a device, and tells whether the callback was taken.
    pub async fn inbound(&self, inbound: Inbound) -> bool {
        self.state.inbound(inbound).await
    }

    /// Runs until the task is ended from outside.
    pub(super) async fn run(mut self) {
        // The serving task never ends by itself.
        let _ = (&mut self.serving).await;
    }
}

impl Drop for RunningGateway {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// What a client asks a gateway to send.
pub(super) struct Incoming {
    pub number: String,
    pub text: String,
    pub picture: Option<String>,
    pub ref_id: Option<String>,
}

/// What a request comes to.
pub(super) enum Taken {
    /// Recorded.
    Accepted(Accepted),
    /// Gone wrong; [`Fault::CutBefore`] and [`Fault::CutAfter`] have cut the connection already.
    Fault(Fault),
}

/// What all handlers of a gateway share.
#[derive(Debug)]
pub(super) struct State {
    script: RwLock<Arc<GatewayScript>>,
    ledger: Mutex<Ledger>,
    clock: SystemClock,
    callbacks: Callbacks,
}

impl State {
    pub fn script(&self) -> Arc<GatewayScript> {
        Arc::clone(&self.script.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_script(&self, script: GatewayScript) {
        *self.script.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(script);
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// The device that a credential belongs to.
    pub fn device(&self, credential: Option<&str>) -> Option<GatewayDevice> {
        let script = self.script();
        let found = script
            .devices
            .iter()
            .find(|device| Some(device.credential.as_str()) == credential)
            .cloned();
        if found.is_none() {
            self.ledger().counts.unauthorized += 1;
        }
        found
    }

    /// Takes a message of a known device: draws its fate, waits, records it and sets off what follows.
    pub async fn take(self: &Arc<Self>, device: GatewayDevice, incoming: Incoming, cut: &Cut) -> Taken {
        let received_at = self.now();
        let script = self.script();
        let asked = self.ledger().ask(&device.serial, &incoming.number);
        let fate = script.fate(&device.serial, &incoming.number, asked);
        if let Some(fault) = fate.fault {
            *self.ledger().counts.faults.entry(fault).or_default() += 1;
        }
        match fate.fault {
            Some(Fault::CutBefore) => {
                cut.now();
                return Taken::Fault(Fault::CutBefore);
            }
            Some(Fault::Hang) => std::future::pending().await,
            _ => {}
        }
        let state = Arc::clone(self);
        // A task of its own: the message is recorded although its sender hangs up meanwhile.
        let work = tokio::spawn(async move {
            tokio::time::sleep(fate.latency).await;
            match fate.fault {
                None | Some(Fault::CutAfter) => state.record(&script, device, incoming, received_at, fate.course),
                Some(_) => None,
            }
        });
        let recorded = work.await.ok().flatten();
        match (fate.fault, recorded) {
            (None, Some(message)) => Taken::Accepted(message),
            (None, None) => Taken::Fault(Fault::ServerError),
            (Some(fault), _) => {
                if fault == Fault::CutAfter {
                    cut.now();
                }
                Taken::Fault(fault)
            }
        }
    }

    fn record(
        self: &Arc<Self>,
        script: &Arc<GatewayScript>,
        device: GatewayDevice,
        incoming: Incoming,
        received_at: Timestamp,
        course: Course,
    ) -> Option<Accepted> {
        let recorded_at = self.now();
        let message = self.ledger().record(|place| Accepted {
            id: id_of(script, place),
            serial: device.serial.clone(),
            number: incoming.number,
            text: incoming.text,
            picture: incoming.picture,
            ref_id: incoming.ref_id,
            received_at,
            recorded_at,
            progress: Progress::Pending,
        })?;
        if device.hook.is_some() {
            tokio::spawn(Arc::clone(self).follow(Arc::clone(script), device, message.clone(), course));
        }
        Some(message)
    }

    /// Reports how a recorded message fares, to its end.
    async fn follow(
        self: Arc<Self>,
        script: Arc<GatewayScript>,
        device: GatewayDevice,
        message: Accepted,
        course: Course,
    ) {
        let steps = [
            (Course::Sent, Progress::Sent),
            (Course::Delivered, Progress::Delivered),
            (Course::Read, Progress::Read),
        ];
        let pauses = script.pauses(&message.id, steps.len() + 1);
        for ((reached, progress), pause) in steps.into_iter().zip(&pauses) {
            if course < reached {
                return;
            }
            tokio::time::sleep(*pause).await;
            self.ledger().progress(&message.id, progress);
            if script.vendor == Vendor::Wablas {
                let answered = self.callbacks.tracking(&device, &message, progress).await;
                self.count_callback(answered);
            }
        }
        let text = match course {
            Course::Stopped => "STOP",
            Course::Replied => "Terima kasih, saya berminat",
            _ => return,
        };
        if let Some(pause) = pauses.last() {
            tokio::time::sleep(*pause).await;
        }
        self.inbound(Inbound::new(&device.serial, &message.number, text)).await;
    }

    pub async fn inbound(&self, inbound: Inbound) -> bool {
        let script = self.script();
        let Some(device) = script.devices.iter().find(|device| device.serial == inbound.serial) else {
            return false;
        };
        let answered = self
            .callbacks
            .inbound(script.vendor, device, &inbound, self.now())
            .await;
        self.count_callback(answered);
        answered
    }

    fn count_callback(&self, answered: bool) {
        let counts = &mut self.ledger().counts;
        if answered {
            counts.callbacks += 1;
        } else {
            counts.callbacks_failed += 1;
        }
    }
}

/// The id that a vendor gives: a UUID at Wablas, a number at Whacenter.
fn id_of(script: &GatewayScript, place: usize) -> String {
    match script.vendor {
        Vendor::Wablas => {
            let digest = Seed::from_number(script.seed).digest(&place.to_be_bytes(), "loopback id");
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest[..16]);
            uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
        }
        Vendor::Whacenter => (110_000_000 + place).to_string(),
    }
}
