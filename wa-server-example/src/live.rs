//! Who looks on: the hints of the bus, sorted by user, for the screens that are connected to this node.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver, Sender};
use wa_core::event::{Event, EventKind, Heard, Listener};
use wa_core::id::UserId;

/// Hints that wait for one screen; who is slower reads the store, where all that is durable is.
const WAITING_MAX: usize = 256;

/// What a screen is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hint {
    /// There is something new in the store, or there may be.
    Look,
    /// Something that is in no store.
    Passing(EventKind),
    /// A login of the user may have ended.
    Login,
}

/// The screens of all users.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<Rooms>);

#[derive(Debug, Default)]
struct Rooms {
    users: HashMap<UserId, Sender<Hint>>,
    closed: bool,
}

impl Live {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more screen of a user; `None` when there are `most` already, or when the server stops.
    pub(crate) fn enter(self: &Arc<Self>, user: UserId, most: usize) -> Option<Seat> {
        let mut rooms = self.rooms();
        if rooms.closed {
            return None;
        }
        let hints = match rooms.users.entry(user) {
            Entry::Occupied(room) if room.get().receiver_count() >= most => return None,
            Entry::Occupied(room) => room.get().subscribe(),
            Entry::Vacant(_) if most == 0 => return None,
            Entry::Vacant(room) => {
                let (sender, receiver) = broadcast::channel(WAITING_MAX);
                room.insert(sender);
                receiver
            }
        };
        Some(Seat {
            live: Arc::clone(self),
            user,
            hints: Some(hints),
        })
    }

    /// Has the screens of a user look whether their login still holds.
    pub(crate) fn login_changed(&self, user: UserId) {
        self.tell(user, Hint::Login);
    }

    fn tell(&self, user: UserId, hint: Hint) {
        if let Some(room) = self.rooms().users.get(&user) {
            // An error means that nobody is there any more.
            let _ = room.send(hint);
        }
    }

    fn hear(&self, heard: Heard) {
        match heard {
            Heard::Event(Event { user_id, kind, .. }) if kind.is_passing() => self.tell(user_id, Hint::Passing(kind)),
            Heard::Event(Event { user_id, .. }) => self.tell(user_id, Hint::Look),
            Heard::Missed => {
                for room in self.rooms().users.values() {
                    let _ = room.send(Hint::Look);
                }
            }
        }
    }

    /// Passes on what the bus says until `stopped`; then every screen is told that the server goes.
    pub(crate) async fn run(&self, mut bus: Listener, stopped: impl Future<Output = ()>) {
        let hear = async {
            while let Some(heard) = bus.next().await {
                self.hear(heard);
            }
        };
        tokio::select! {
            () = hear => {}
            () = stopped => {}
        }
        let mut rooms = self.rooms();
        rooms.closed = true;
        rooms.users.clear();
    }
}

/// The place of one screen. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Seat {
    live: Arc<Live>,
    user: UserId,
    hints: Option<Receiver<Hint>>,
}

impl Seat {
    /// The next hint; `None` when the server stops. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Option<Hint> {
        match self.hints.as_mut()?.recv().await {
            Ok(hint) => Some(hint),
            Err(RecvError::Lagged(_)) => Some(Hint::Look),
            Err(RecvError::Closed) => None,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut rooms = self.live.rooms();
        self.hints = None;
        if let Entry::Occupied(room) = rooms.users.entry(self.user)
            && room.get().receiver_count() == 0
        {
            room.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use wa_core::domain::suppression::SuppressionReason;
    use wa_core::event::EventBus as _;
    use wa_core::event::LocalBus;
    use wa_core::id::{CampaignId, EventId, IdSource};
    use wa_core::time::Timestamp;

    use super::*;

    fn ids() -> IdSource {
        IdSource::from_entropy()
    }

    fn event(user_id: UserId, kind: EventKind) -> Event {
        Event {
            id: EventId::new(&ids(), Timestamp::EPOCH),
            user_id,
            kind,
            at: Timestamp::EPOCH,
        }
    }

    fn durable() -> EventKind {
        EventKind::OptedOut {
            lead_id: None,
            reason: SuppressionReason::ByPerson,
        }
    }

    #[tokio::test]
    async fn a_screen_hears_of_its_own_user_alone() {
        let live = Arc::<Live>::default();
        let (ann, ben) = (
            UserId::new(&ids(), Timestamp::EPOCH),
            UserId::new(&ids(), Timestamp::EPOCH),
        );
        let (mut of_ann, mut of_ben) = (live.enter(ann, 9).unwrap(), live.enter(ben, 9).unwrap());
        let campaign_id = CampaignId::new(&ids(), Timestamp::EPOCH);
        let progress = EventKind::CampaignProgress { campaign_id };
        live.hear(Heard::Event(event(ann, durable())));
        live.hear(Heard::Event(event(ann, progress.clone())));
        assert_eq!(of_ann.next().await, Some(Hint::Look));
        assert_eq!(of_ann.next().await, Some(Hint::Passing(progress)));
        assert_eq!(of_ben.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn who_missed_something_looks_and_places_are_given_back() {
        let live = Arc::<Live>::default();
        let ann = UserId::new(&ids(), Timestamp::EPOCH);
        let mut first = live.enter(ann, 2).unwrap();
        let second = live.enter(ann, 2).unwrap();
        assert!(live.enter(ann, 2).is_none(), "two are the most");
        drop(second);
        assert!(live.enter(ann, 2).is_some());
        live.hear(Heard::Missed);
        assert_eq!(first.next().await, Some(Hint::Look));
        for _ in 0..=WAITING_MAX {
            live.login_changed(ann);
        }
        assert_eq!(first.next().await, Some(Hint::Look), "too slow");
        drop(first);
        assert!(live.rooms().users.is_empty());
    }

    #[tokio::test]
    async fn all_end_when_the_server_stops() {
        let live = Arc::<Live>::default();
        let ann = UserId::new(&ids(), Timestamp::EPOCH);
        let mut seat = live.enter(ann, 2).unwrap();
        let bus = LocalBus::new();
        live.run(bus.listen(), std::future::ready(())).await;
        assert_eq!(seat.next().await, None);
        assert!(live.enter(ann, 2).is_none());
    }
}
