//! How often anybody may try a password.

use std::net::IpAddr;
use std::time::Duration;

use wa_core::time::Monotonic;

use super::limit::Windows;

/// Tries to log in per address and account within [`TRIES_SPAN`].
pub const TRIES_MAX: u32 = 5;
/// Tries to log in per address within [`TRIES_SPAN`], whatever the account.
pub const TRIES_PER_ADDRESS_MAX: u32 = 50;
/// Tries to log in per account within [`TRIES_SPAN`], wherever they come from.
pub const TRIES_PER_ACCOUNT_MAX: u32 = 100;
/// The span of the limits on tries: 15 min.
pub const TRIES_SPAN: Duration = Duration::from_secs(900);

/// The tries of the last 15 min, failed or under way; those that succeeded do not count.
#[derive(Debug)]
pub struct LoginTries {
    address: Windows<IpAddr>,
    pair: Windows<(IpAddr, String)>,
    account: Windows<String>,
}

/// A try that was counted.
#[derive(Debug)]
#[must_use]
pub struct LoginTry {
    pair: (IpAddr, String),
    at: Monotonic,
}

impl LoginTries {
    /// No tries yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            address: Windows::new(TRIES_PER_ADDRESS_MAX, TRIES_SPAN),
            pair: Windows::new(TRIES_MAX, TRIES_SPAN),
            account: Windows::new(TRIES_PER_ACCOUNT_MAX, TRIES_SPAN),
        }
    }

    /// Counts a try to log in. The address comes first: one that may not try at all leaves no trace of the logins it names.
    ///
    /// # Errors
    /// How long to wait until another one is allowed; the refused one does not count.
    pub fn take(&self, address: IpAddr, login: &str, now: Monotonic) -> Result<LoginTry, Duration> {
        let pair = (address, login.to_owned());
        self.address.take(&address, now)?;
        if let Err(wait) = self.pair.take(&pair, now) {
            self.address.give_back(&address, now);
            return Err(wait);
        }
        if let Err(wait) = self.account.take(&pair.1, now) {
            self.pair.give_back(&pair, now);
            self.address.give_back(&address, now);
            return Err(wait);
        }
        Ok(LoginTry { pair, at: now })
    }

    /// Counts something else that an address may not do more often than log in.
    ///
    /// # Errors
    /// How long to wait until another one is allowed.
    pub fn take_address(&self, address: IpAddr, now: Monotonic) -> Result<(), Duration> {
        self.address.take(&address, now)
    }

    /// Counts a try by somebody who is logged in.
    ///
    /// # Errors
    /// How long to wait until another one is allowed.
    pub fn take_account(&self, login: &str, now: Monotonic) -> Result<(), Duration> {
        self.account.take(&login.to_owned(), now)
    }

    /// The password was right: the try does not count, nor those of the address at this account before it.
    pub fn succeeded(&self, tried: &LoginTry) {
        self.give_back(tried);
        self.pair.forget(&tried.pair);
    }

    /// Nothing was verified: the try does not count.
    pub fn give_back(&self, tried: &LoginTry) {
        let (address, login) = &tried.pair;
        self.address.give_back(address, tried.at);
        self.pair.give_back(&tried.pair, tried.at);
        self.account.give_back(login, tried.at);
    }
}

impl Default for LoginTries {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_millis(ms))
    }

    const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    #[test]
    fn one_address_that_tries_60_000_logins_keeps_nobody_else_out() {
        let tries = LoginTries::new();
        let taken = (0..60_000).filter(|n| tries.take(ATTACKER, &format!("login-{n}"), at(*n)).is_ok());
        assert_eq!(taken.count(), TRIES_PER_ADDRESS_MAX as usize);
        assert!(tries.take(ELSEWHERE, "ann", at(60_000)).is_ok());
    }

    #[test]
    fn many_addresses_that_try_60_000_logins_keep_nobody_else_out() {
        let tries = LoginTries::new();
        for n in 0..60_000_u32 {
            let address = IpAddr::from((n / TRIES_PER_ADDRESS_MAX + (10 << 24)).to_be_bytes());
            assert!(tries.take(address, &format!("login-{n}"), at(u64::from(n))).is_ok());
        }
        assert!(tries.take(ELSEWHERE, "ann", at(60_000)).is_ok());
    }

    #[test]
    fn a_try_that_is_refused_counts_nowhere() {
        let tries = LoginTries::new();
        for _ in 0..TRIES_MAX {
            assert!(tries.take(ELSEWHERE, "ann", at(0)).is_ok());
        }
        for _ in 0..TRIES_PER_ADDRESS_MAX {
            assert!(tries.take(ELSEWHERE, "ann", at(1)).is_err());
        }
        assert!(tries.take(ELSEWHERE, "ben", at(2)).is_ok());
    }

    #[test]
    fn the_right_password_is_free_and_forgets_the_wrong_ones_before_it() {
        let tries = LoginTries::new();
        for _ in 1..TRIES_MAX {
            assert!(tries.take(ELSEWHERE, "ann", at(0)).is_ok());
        }
        for _ in 0..2 * TRIES_PER_ACCOUNT_MAX {
            let tried = tries.take(ELSEWHERE, "ann", at(1)).unwrap();
            tries.succeeded(&tried);
        }
        let wrong = (0..10).filter(|_| tries.take(ELSEWHERE, "ann", at(2)).is_ok());
        assert_eq!(wrong.count(), TRIES_MAX as usize);
    }
}
