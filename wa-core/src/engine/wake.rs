//! Hints that there is something to do; losing one costs at most one interval of looking.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use crate::id::DeviceId;

/// What there is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// Devices that may have something to send.
    pub devices: BTreeSet<DeviceId>,
    /// Devices whose settings changed.
    pub changed: BTreeSet<DeviceId>,
    /// Whether the planner may have work.
    pub plan: bool,
}

impl Hints {
    fn is_empty(&self) -> bool {
        self.devices.is_empty() && self.changed.is_empty() && !self.plan
    }
}

/// Collects hints for the one runner of an engine.
#[derive(Debug, Default)]
pub struct Wake {
    hints: Mutex<Hints>,
    waker: AtomicWaker,
}

impl Wake {
    fn add(&self, change: impl FnOnce(&mut Hints)) {
        change(&mut self.hints.lock().unwrap_or_else(PoisonError::into_inner));
        self.waker.wake();
    }

    /// These devices may have something to send.
    pub fn devices(&self, devices: impl IntoIterator<Item = DeviceId>) {
        self.add(|hints| hints.devices.extend(devices));
    }

    /// The settings of this device changed.
    pub fn changed(&self, device: DeviceId) {
        self.add(|hints| {
            hints.changed.insert(device);
        });
    }

    /// The planner may have work.
    pub fn plan(&self) {
        self.add(|hints| hints.plan = true);
    }

    /// Takes the hints collected so far.
    pub fn take(&self) -> Hints {
        std::mem::take(&mut *self.hints.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there is a hint.
    pub fn wait(&self) -> impl Future<Output = ()> + '_ {
        Waiting(self)
    }
}

struct Waiting<'a>(&'a Wake);

impl Future for Waiting<'_> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.waker.register(context.waker());
        let empty = self.0.hints.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if empty { Poll::Pending } else { Poll::Ready(()) }
    }
}
