//! Keyed randomness: the same seed, key and purpose give the same stream on every node, retry and replay.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use rand::SeedableRng;
pub use rand::rngs::ChaCha8Rng;
use sha2::Sha256;

/// The secret from which every random decision of a database is drawn; made once and kept in it.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed([u8; 32]);

impl Seed {
    /// Wraps 32 bytes read from the store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A seed for simulations and tests, from one number.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self(bytes)
    }

    /// A seed that nobody can guess, from the operating system.
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    #[must_use]
    pub fn from_entropy() -> Self {
        let mut bytes = [0; 32];
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut bytes)
            .expect("the operating system gives random bytes");
        Self(bytes)
    }

    /// The bytes to keep in the store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The random stream of `key` for one `purpose`; streams of other purposes are independent of it.
    #[must_use]
    pub fn rng(&self, key: &[u8], purpose: &'static str) -> ChaCha8Rng {
        ChaCha8Rng::from_seed(self.digest(key, purpose))
    }

    /// A keyed digest (HMAC-SHA-256) of `key` for one `purpose`.
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    #[must_use]
    pub fn digest(&self, key: &[u8], purpose: &'static str) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(purpose.as_bytes());
        mac.update(&[0]);
        mac.update(key);
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_stream_depends_on_seed_key_and_purpose_and_on_nothing_else() {
        let seed = Seed::from_number(1);
        let draw = |seed: &Seed, key: &[u8], purpose| seed.rng(key, purpose).next_u64();
        assert_eq!(draw(&seed, b"k", "a"), draw(&seed, b"k", "a"));
        assert_ne!(draw(&seed, b"k", "a"), draw(&seed, b"k", "b"));
        assert_ne!(draw(&seed, b"k", "a"), draw(&seed, b"l", "a"));
        assert_ne!(draw(&seed, b"k", "a"), draw(&Seed::from_number(2), b"k", "a"));
    }

    #[test]
    fn debug_output_hides_the_seed() {
        assert_eq!(format!("{:?}", Seed::from_number(123)), "Seed(…)");
    }
}
