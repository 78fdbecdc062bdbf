//! Passwords that came by basic auth: those verified a moment ago, and those being verified.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use wa_core::domain::access::User;
use wa_core::id::UserId;
use wa_core::time::Monotonic;

use super::error::ApiError;
use crate::password;

/// How long a password that came by basic auth is not verified again: 5 min.
pub const BASIC_REMEMBERED_FOR: Duration = Duration::from_secs(300);

/// Passwords that were verified a moment ago or are being verified, by a digest that only this process can make.
#[derive(Debug)]
pub(crate) struct BasicMemory {
    key: [u8; 32],
    known: Mutex<HashMap<BasicKey, Known>>,
    verified_now: Mutex<HashMap<(IpAddr, BasicKey), Arc<Verification>>>,
}

/// The digest of a login and a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BasicKey([u8; 32]);

#[derive(Debug)]
struct Known {
    user: UserId,
    version: i64,
    until: Monotonic,
}

/// A verification under way; what it found, once it is there.
pub(crate) type Verification = tokio::sync::Mutex<Option<Result<User, ApiError>>>;

impl Default for BasicMemory {
    fn default() -> Self {
        Self {
            key: password::random(),
            known: Mutex::default(),
            verified_now: Mutex::default(),
        }
    }
}

impl BasicMemory {
    /// Most that is remembered.
    const COUNT_MAX: usize = 1_000;

    pub(crate) fn key(&self, login: &str, password: &SecretString) -> BasicKey {
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update((login.len() as u64).to_be_bytes());
        hash.update(login.as_bytes());
        hash.update(password.expose_secret().as_bytes());
        BasicKey(hash.finalize().into())
    }

    pub(crate) fn find(&self, key: BasicKey, now: Monotonic) -> Option<(UserId, i64)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&key)
            .filter(|known| known.until > now)
            .map(|known| (known.user, known.version))
    }

    pub(crate) fn remember(&self, key: BasicKey, user: UserId, version: i64, now: Monotonic) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= Self::COUNT_MAX {
            known.retain(|_, known| known.until > now);
        }
        if known.len() < Self::COUNT_MAX {
            let until = now + BASIC_REMEMBERED_FOR;
            known.insert(key, Known { user, version, until });
        }
    }

    /// Joins the verification of what an address sent, or begins one. Addresses do not share them: what one is refused for is
    /// nothing to another.
    pub(crate) fn verification(&self, address: IpAddr, key: BasicKey) -> Joined<'_> {
        let of = (address, key);
        let verification = Arc::clone(self.all().entry(of).or_default());
        Joined {
            memory: self,
            of,
            verification,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<(IpAddr, BasicKey), Arc<Verification>>> {
        self.verified_now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part in a verification. Whoever has its lock while nothing is found verifies; one that goes away while it does leaves that
/// to the next.
pub(crate) struct Joined<'a> {
    memory: &'a BasicMemory,
    of: (IpAddr, BasicKey),
    pub(crate) verification: Arc<Verification>,
}

impl Joined<'_> {
    /// Lets no more requests join: what was found is for those that waited for it.
    pub(crate) fn close(&self) {
        let mut all = self.memory.all();
        if all
            .get(&self.of)
            .is_some_and(|now| Arc::ptr_eq(now, &self.verification))
        {
            all.remove(&self.of);
        }
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut all = self.memory.all();
        let last = all.get(&self.of).is_some_and(|now| {
            // The map has one, and this.
            Arc::ptr_eq(now, &self.verification) && Arc::strong_count(now) == 2
        });
        if last {
            all.remove(&self.of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_come_while_a_verification_is_under_way_join_it_and_none_is_left_behind() {
        let memory = BasicMemory::default();
        let address = IpAddr::from([127, 0, 0, 1]);
        let key = memory.key("ann", &SecretString::from("correct horse"));
        let other = memory.key("ann", &SecretString::from("wrong horse"));
        let (first, second) = (memory.verification(address, key), memory.verification(address, key));
        assert!(Arc::ptr_eq(&first.verification, &second.verification));
        let elsewhere = memory.verification(IpAddr::from([127, 0, 0, 2]), key);
        let wrong = memory.verification(address, other);
        for apart in [&elsewhere, &wrong] {
            assert!(!Arc::ptr_eq(&first.verification, &apart.verification));
        }
        first.close();
        let later = memory.verification(address, key);
        assert!(!Arc::ptr_eq(&first.verification, &later.verification));
        drop((first, second, elsewhere, wrong));
        assert_eq!(memory.all().len(), 1);
        drop(later);
        assert!(memory.all().is_empty());
    }
}
