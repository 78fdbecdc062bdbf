//! Tells other nodes, over LISTEN and NOTIFY, of devices that got something to do.
//!
//! A notification is a hint and nothing more: one that is lost costs the second after which every engine looks by itself. It is
//! sent after the commit that it tells of, many in one, because a transaction that notifies holds a lock of the
//! whole server while it commits; only [`commit_in`](crate::PostgresStore::commit_in), which does not see the commit, notifies within.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::{PgListener, PgPool};
use wa_core::id::DeviceId;
use wa_core::store::{StoreError, WriteClass};

use crate::connections::{Connections, Line};
use crate::error::{Done, Fail};
use crate::insert::query;
use crate::row::keys;

/// Tells of devices.
pub(crate) const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// Devices in one notification: Postgres takes less than 8,000 bytes, and a device is 33 of them.
const DEVICES_MAX: usize = 200;

/// The channel of a schema.
pub(crate) fn channel(schema: &str) -> String {
    format!("wa_wake_{schema}")
}

fn payload(devices: &[DeviceId]) -> String {
    let ids: Vec<String> = keys(devices).iter().map(|id| id.simple().to_string()).collect();
    ids.join(" ")
}

/// The devices of a notification; what is none is left out.
fn devices_of(payload: &str) -> Vec<DeviceId> {
    let ids = payload.split(' ').filter_map(|id| uuid::Uuid::parse_str(id).ok());
    ids.filter_map(|id| DeviceId::from_slice(id.as_bytes())).collect()
}

/// Notifies within a transaction.
pub(crate) async fn notify(connection: &mut impl Line, channel: &str, devices: &[DeviceId]) -> Done<()> {
    for devices in devices.chunks(DEVICES_MAX) {
        let statement = query(NOTIFY).bind(channel.to_owned()).bind(payload(devices));
        statement.execute(connection).await?;
    }
    Ok(())
}

#[derive(Debug, Default)]
struct Pending {
    devices: BTreeSet<DeviceId>,
    /// Whether a task is sending them.
    sending: bool,
}

/// Gathers devices and notifies of them.
#[derive(Debug)]
pub(crate) struct Notifier {
    connections: Connections,
    channel: String,
    pending: Mutex<Pending>,
}

impl Notifier {
    pub(crate) fn new(connections: Connections, schema: &str) -> Arc<Self> {
        Arc::new(Self {
            connections,
            channel: channel(schema),
            pending: Mutex::default(),
        })
    }

    /// Tells of devices soon, together with whatever comes until then.
    pub(crate) fn tell(self: &Arc<Self>, devices: &[DeviceId]) {
        if devices.is_empty() {
            return;
        }
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.devices.extend(devices);
        if !pending.sending {
            pending.sending = true;
            tokio::spawn(self.clone().send());
        }
    }

    fn take(&self) -> Vec<DeviceId> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.sending = !pending.devices.is_empty();
        std::mem::take(&mut pending.devices).into_iter().collect()
    }

    async fn send(self: Arc<Self>) {
        loop {
            let devices = self.take();
            if devices.is_empty() {
                return;
            }
            let sent = async {
                let mut connection = self.connections.writer(WriteClass::Api).await?;
                notify(&mut connection, &self.channel, &devices).await
            };
            if let Err(fail) = sent.await {
                let fail: Fail = fail;
                tracing::debug!(?fail, "other nodes are not told of new messages");
            }
        }
    }
}

/// Devices that other nodes, or transactions of an embedder, gave something to do.
#[derive(Debug)]
pub struct Wakes {
    listener: PgListener,
}

impl Wakes {
    pub(crate) async fn listen(pool: &PgPool, schema: &str) -> Done<Self> {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(&channel(schema)).await?;
        Ok(Self { listener })
    }

    /// The next devices, to be given to the engine's handle. A connection that breaks is opened again; what was told
    /// meanwhile is lost. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Unavailable` while the database does not answer: wait and call again.
    pub async fn next(&mut self) -> Result<Vec<DeviceId>, StoreError> {
        let told = self.listener.recv().await;
        let told = told.map_err(|error| Fail::from(error).of("wakes", "notification"))?;
        Ok(devices_of(told.payload()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_as_they_are_read_within_the_limit_of_a_notification() {
        let device = |n: u8| DeviceId::from_slice(&[n; 16]).unwrap();
        let devices: Vec<DeviceId> = (0..200).map(device).collect();
        let told = payload(&devices);
        assert!(told.len() < 8_000);
        assert_eq!(devices_of(&told), devices);
        assert_eq!(devices_of("nothing that is a device"), []);
    }
}
