//! What all requests share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wa_core::engine::Transports;
use wa_core::engine::handle::Handle;
use wa_core::id::{IdSource, ImportId};
use wa_core::store::AppStore;
use wa_core::time::{Clock, Timestamp};

use crate::assemble::EngineSlot;
use crate::forecasts::Forecasts;
use crate::http::basic::BasicMemory;
use crate::http::limit::Buckets;
use crate::http::login_tries::LoginTries;
use crate::http::metrics::Meters;
use crate::live::Live;
use crate::media::FileMedia;
use crate::password::Passwords;
use crate::settings::Settings;

/// What all requests share.
#[derive(Debug)]
pub struct App {
    pub(crate) store: Arc<dyn AppStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ids: IdSource,
    pub(crate) settings: Settings,
    pub(crate) passwords: Passwords,
    pub(crate) limits: Limits,
    pub(crate) basic: BasicMemory,
    pub(crate) meters: Arc<Meters>,
    pub(crate) engine: EngineSlot,
    pub(crate) handle: Handle,
    pub(crate) transports: Transports,
    pub(crate) media: Arc<FileMedia>,
    pub(crate) imports: Imports,
    pub(crate) forecasts: Forecasts,
    pub(crate) live: Arc<Live>,
    pub(crate) started_at: Timestamp,
}

impl App {
    /// Puts together what requests share.
    pub(crate) fn new(parts: Parts, settings: Settings) -> Self {
        let Parts {
            store,
            clock,
            handle,
            transports,
            media,
            meters,
        } = parts;
        Self {
            limits: Limits::new(&settings),
            forecasts: Forecasts::new(settings.forecasts_max),
            started_at: clock.wall(),
            store,
            clock,
            ids: IdSource::from_entropy(),
            settings,
            passwords: Passwords::new(),
            basic: BasicMemory::default(),
            meters,
            engine: EngineSlot::default(),
            handle,
            transports,
            media,
            imports: Imports::default(),
            live: Arc::default(),
        }
    }
}

/// What the server was put together from.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn AppStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) handle: Handle,
    pub(crate) transports: Transports,
    pub(crate) media: Arc<FileMedia>,
    pub(crate) meters: Arc<Meters>,
}

/// Imports under way, so that they can be ended.
#[derive(Debug)]
pub(crate) struct Imports {
    turns: Arc<Semaphore>,
    cancels: Mutex<HashMap<ImportId, Arc<AtomicBool>>>,
}

impl Imports {
    /// Most imports at a time.
    pub(crate) const AT_A_TIME_MAX: usize = 4;

    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.turns).try_acquire_owned().ok()
    }

    /// Lists an import for as long as what is given back is kept.
    pub(crate) fn add(app: &Arc<App>, id: ImportId, cancel: Arc<AtomicBool>) -> ImportUnderWay {
        app.imports.all().insert(id, cancel);
        ImportUnderWay {
            app: Arc::clone(app),
            id,
        }
    }

    pub(crate) fn get(&self, id: ImportId) -> Option<Arc<AtomicBool>> {
        self.all().get(&id).cloned()
    }

    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<ImportId, Arc<AtomicBool>>> {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Imports {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(Self::AT_A_TIME_MAX)),
            cancels: Mutex::default(),
        }
    }
}

/// An import that runs here, until this is dropped.
pub(crate) struct ImportUnderWay {
    app: Arc<App>,
    id: ImportId,
}

impl Drop for ImportUnderWay {
    fn drop(&mut self) {
        self.app.imports.all().remove(&self.id);
    }
}

/// How often who may do what.
#[derive(Debug)]
pub struct Limits {
    pub(crate) login: LoginTries,
    pub(crate) lead_webhook: Buckets<IpAddr>,
    pub(crate) api: Buckets<IpAddr>,
}

impl Limits {
    fn new(settings: &Settings) -> Self {
        let minute = Duration::from_secs(60);
        Self {
            login: LoginTries::new(),
            lead_webhook: Buckets::new(settings.lead_webhook_per_minute, minute),
            api: Buckets::new(settings.api_per_minute, minute),
        }
    }
}
