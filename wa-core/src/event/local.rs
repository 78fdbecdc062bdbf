//! A bus within one process.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;

use async_trait::async_trait;
use futures::task::AtomicWaker;

use super::{Event, EventBus};

/// What a listener hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something happened.
    Event(Event),
    /// Something may have happened of which it was not told: it was too slow, or the bus was away. What is durable is in the store.
    Missed,
}

#[derive(Debug, Default)]
struct Waiting {
    heard: VecDeque<Event>,
    /// Whether anything before the oldest that waits was lost.
    missed: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Mailbox {
    waiting: Mutex<Waiting>,
    waker: AtomicWaker,
}

impl Mailbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.waiting());
        self.waker.wake();
    }
}

/// Hears what is published on a bus from the moment on at which it was made. Dropping it ends that.
#[derive(Debug)]
pub struct Listener(Arc<Mailbox>);

impl Listener {
    /// What it hears next; `None` when the bus is gone. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Heard> {
        poll_fn(|context| {
            self.0.waker.register(context.waker());
            let closed = self.0.waiting().closed;
            match self.try_next() {
                None if !closed => Poll::Pending,
                heard => Poll::Ready(heard),
            }
        })
        .await
    }

    /// What it has heard already.
    pub fn try_next(&mut self) -> Option<Heard> {
        let mut waiting = self.0.waiting();
        if std::mem::take(&mut waiting.missed) {
            return Some(Heard::Missed);
        }
        waiting.heard.pop_front().map(Heard::Event)
    }
}

#[derive(Debug, Default)]
struct Listeners(Mutex<Vec<Weak<Mailbox>>>);

impl Listeners {
    fn each(&self, tell: impl Fn(&Mailbox)) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|listener| match listener.upgrade() {
            Some(mailbox) => {
                tell(&mailbox);
                true
            }
            None => false,
        });
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        self.each(|mailbox| mailbox.put(|waiting| waiting.closed = true));
    }
}

/// Passes events on to those who listen in this process. Its clones are one bus.
#[derive(Debug, Clone, Default)]
pub struct LocalBus(Arc<Listeners>);

impl LocalBus {
    /// Most events that wait for one listener; who is slower misses the oldest.
    pub const WAITING_MAX: usize = 4_096;

    /// A bus on which nobody listens yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Passes events on.
    pub fn tell(&self, events: &[Event]) {
        if events.is_empty() {
            return;
        }
        self.0.each(|mailbox| {
            mailbox.put(|waiting| {
                waiting.heard.extend(events.iter().cloned());
                let over = waiting.heard.len().saturating_sub(Self::WAITING_MAX);
                waiting.heard.drain(..over);
                waiting.missed |= over > 0;
            });
        });
    }

    /// Tells that events may have been lost.
    pub fn tell_missed(&self) {
        self.0.each(|mailbox| mailbox.put(|waiting| waiting.missed = true));
    }
}

#[async_trait]
impl EventBus for LocalBus {
    async fn publish(&self, events: &[Event]) {
        self.tell(events);
    }

    fn listen(&self) -> Listener {
        let mailbox = Arc::<Mailbox>::default();
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::downgrade(&mailbox));
        Listener(mailbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn a_listener_ends_with_its_bus_and_the_bus_forgets_listeners_that_ended() {
        let bus = LocalBus::new();
        let mut listener = bus.listen();
        drop(bus.listen());
        assert_eq!(listener.next().now_or_never(), None, "nothing happened yet");
        bus.tell_missed();
        assert_eq!(bus.0.0.lock().unwrap().len(), 1);
        drop(bus);
        assert_eq!(listener.next().now_or_never(), Some(Some(Heard::Missed)));
        assert_eq!(listener.next().now_or_never(), Some(None));
    }
}
