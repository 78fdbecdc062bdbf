//! The lock of a node's name: whoever has it knows that the process which had it before is dead.
//!
//! It is an advisory lock of a session that does nothing else. The server gives it back when the process ends, however it ends; one
//! that is merely stopped keeps it. A session that breaks while its process lives gives it back too: a new process of the same
//! name then takes over at once, as if the old one were dead. That loses and doubles nothing, because the old one is fenced and
//! what it was sending is in doubt; the old session is opened again at the next beat to keep this from happening.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Mutex;

use crate::error::Done;
use crate::insert::query;
use crate::limit::within;
use crate::lock::Space;

/// A session whose process was killed ends within moments; nobody waits longer for one that lives. It is never too idle.
pub(crate) const LIMIT: &str =
    "SELECT set_config('lock_timeout', '1000', false), set_config('idle_session_timeout', '0', false)";
/// Waits for the lock, up to the limit.
pub(crate) const TAKE: &str = "SELECT pg_advisory_lock($1)";
/// Takes the lock if nobody has it.
pub(crate) const TRY: &str = "SELECT pg_try_advisory_lock($1)";

/// Whether to wait for a lock that another session has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Patience {
    Wait,
    Try,
}

/// The name that this process goes by, with the session that holds its lock.
#[derive(Debug)]
struct Named {
    name: String,
    session: Option<PgConnection>,
}

/// The lock of a name.
#[derive(Debug)]
pub(crate) struct NameLock {
    connect: PgConnectOptions,
    /// How long the database may keep silent.
    limit: Duration,
    space: Space,
    named: Mutex<Option<Named>>,
}

impl NameLock {
    pub(crate) fn new(connect: PgConnectOptions, limit: Duration, space: Space) -> Arc<Self> {
        Arc::new(Self {
            connect,
            limit,
            space,
            named: Mutex::default(),
        })
    }

    /// Takes the lock of a name for this process; says whether it has it. A process goes by the first name that it took.
    pub(crate) async fn take(&self, name: &str) -> bool {
        let mut named = self.named.lock().await;
        let named = named.get_or_insert_with(|| Named {
            name: name.to_owned(),
            session: None,
        });
        named.name == name && self.hold(named, Patience::Wait).await
    }

    /// Whether this process has the lock of a name just now.
    pub(crate) async fn holds(&self, name: &str) -> bool {
        match &mut *self.named.lock().await {
            Some(named) if named.name == name => named.answers(self.limit).await,
            _ => false,
        }
    }

    /// Takes the lock again where its session broke, without letting anybody wait.
    pub(crate) fn look_after(self: &Arc<Self>) {
        let lock = Arc::clone(self);
        tokio::spawn(async move {
            if let Ok(mut named) = lock.named.try_lock()
                && let Some(named) = &mut *named
            {
                lock.hold(named, Patience::Try).await;
            }
        });
    }

    async fn hold(&self, named: &mut Named, patience: Patience) -> bool {
        if named.answers(self.limit).await {
            return true;
        }
        match within(Some(self.limit), self.open(&named.name, patience)).await {
            Ok(session) => named.session = session,
            Err(fail) => tracing::debug!(?fail, "the lock of the node's name could not be asked for"),
        }
        named.session.is_some()
    }

    /// A session that has the lock, unless another one has it.
    async fn open(&self, name: &str, patience: Patience) -> Done<Option<PgConnection>> {
        let key = self.space.name(name);
        let mut session = self.connect.connect().await?;
        query(LIMIT).execute(&mut session).await?;
        let taken = match patience {
            Patience::Try => query(TRY).bind(key).number(&mut session).await? == Some(1),
            Patience::Wait => match query(TAKE).bind(key).execute(&mut session).await {
                Ok(_) => true,
                Err(fail) if fail.passes() => false,
                Err(fail) => return Err(fail),
            },
        };
        Ok(taken.then_some(session))
    }
}

impl Named {
    async fn answers(&mut self, limit: Duration) -> bool {
        let Some(session) = &mut self.session else { return false };
        let answers = within(Some(limit), session.ping()).await.is_ok();
        if !answers {
            self.session = None;
        }
        answers
    }
}
