//! Forecasts: how many are made at a time, and those that were made a moment ago, to be read page by page.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wa_core::domain::message::MessageScope;
use wa_core::id::UserId;
use wa_core::simulation::forecast::Forecast;
use wa_core::time::Monotonic;

use crate::password;

/// Forecasts of all users.
#[derive(Debug)]
pub(crate) struct Forecasts {
    turns: Arc<Semaphore>,
    busy: Arc<Mutex<HashSet<UserId>>>,
    made: Mutex<VecDeque<Made>>,
}

/// A forecast that was made.
#[derive(Debug)]
struct Made {
    user: UserId,
    token: String,
    until: Monotonic,
    forecast: Arc<Forecast>,
}

/// The right to make a forecast, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    user: UserId,
    busy: Arc<Mutex<HashSet<UserId>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Turn {
    fn drop(&mut self) {
        locked(&self.busy).remove(&self.user);
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Forecasts {
    /// Most that are kept to be read on, one per user.
    const KEPT_MAX: usize = 8;
    /// How long one is kept after it was last read.
    const KEPT_FOR: Duration = Duration::from_secs(10 * 60);

    /// So many at a time.
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(at_a_time)),
            busy: Arc::default(),
            made: Mutex::default(),
        }
    }

    /// The right to make one, if it is not too much now: a user has one at a time.
    pub(crate) fn turn(&self, user: UserId) -> Option<Turn> {
        let permit = Arc::clone(&self.turns).try_acquire_owned().ok()?;
        locked(&self.busy).insert(user).then(|| Turn {
            user,
            busy: Arc::clone(&self.busy),
            _permit: permit,
        })
    }

    /// Keeps a forecast in place of the user's last one; gives the token by which it is read on.
    pub(crate) fn keep(&self, user: UserId, forecast: &Arc<Forecast>, now: Monotonic) -> String {
        let mut made = locked(&self.made);
        made.retain(|one| one.user != user && one.until > now);
        if made.len() >= Self::KEPT_MAX {
            made.pop_front();
        }
        let token = password::token();
        made.push_back(Made {
            user,
            token: token.clone(),
            until: now + Self::KEPT_FOR,
            forecast: Arc::clone(forecast),
        });
        token
    }

    /// A forecast of the user's own that was kept, by its token and what it is about.
    pub(crate) fn kept(&self, user: UserId, token: &str, of: MessageScope, now: Monotonic) -> Option<Arc<Forecast>> {
        let mut made = locked(&self.made);
        let one = made.iter_mut().find(|one| one.user == user && one.token == token)?;
        let fresh = one.until > now && one.forecast.scope == of;
        fresh.then(|| {
            one.until = now + Self::KEPT_FOR;
            Arc::clone(&one.forecast)
        })
    }
}

#[cfg(test)]
mod tests {
    use wa_core::id::IdSource;
    use wa_core::time::Timestamp;

    use super::*;

    #[test]
    fn a_user_has_one_turn_and_all_together_as_many_as_there_are() {
        let ids = IdSource::seeded([1; 32]);
        let user = || UserId::new(&ids, Timestamp::EPOCH);
        let (ann, ben, eve) = (user(), user(), user());
        let forecasts = Forecasts::new(2);
        let first = forecasts.turn(ann).unwrap();
        assert!(forecasts.turn(ann).is_none(), "one at a time");
        let second = forecasts.turn(ben).unwrap();
        assert!(forecasts.turn(eve).is_none(), "two in all");
        drop(first);
        let third = forecasts.turn(eve).unwrap();
        drop((second, third));
        assert!(forecasts.turn(ann).is_some());
    }
}
