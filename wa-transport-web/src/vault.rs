//! Encryption of session values at rest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use secrecy::{ExposeSecret, SecretString};
use wa_core::id::DeviceId;
use wa_core::store::SESSION_VALUE_BYTES_MAX;

/// What a sealed value begins with, by which it is told from a plain one.
const SEALED: u8 = 1;

/// What a plain value begins with.
const PLAIN: u8 = 0;

/// Bytes of a nonce.
const NONCE: usize = 24;

/// Bytes that sealing adds: the mark, the nonce and the tag.
const ADDED: usize = 1 + NONCE + 16;

/// Longest value that can be sealed, in bytes.
pub const VALUE_BYTES_MAX: usize = SESSION_VALUE_BYTES_MAX - ADDED;

/// A key that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session key must be 32 bytes in base64")]
pub struct InvalidKey;

/// A stored value that cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It was sealed with another key, for another place, or was changed.
    #[error("the session was sealed with another key, or its row was changed")]
    WrongKey,
    /// It was sealed and there is no key.
    #[error("the session is sealed and no session key is set")]
    NoKey,
    /// It was not written by this crate.
    #[error("the session's row cannot be read")]
    Unreadable,
}

/// Seals and opens the values of sessions: XChaCha20-Poly1305 with a random nonce each, bound to the device and the key of the
/// row, so that a row put in another's place does not open. Without a key values are kept as they are. Values that were
/// written before a key was set stay readable and are sealed when they are written next. The keys of rows are not sealed, and some
/// of them hold the numbers of contacts.
pub struct Vault {
    cipher: Option<XChaCha20Poly1305>,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("seals", &self.cipher.is_some()).finish()
    }
}

impl Vault {
    /// Keeps values as they are.
    #[must_use]
    pub const fn plain() -> Self {
        Self { cipher: None }
    }

    /// Seals values with a key of 32 bytes, given in base64.
    ///
    /// # Errors
    /// [`InvalidKey`] for anything else.
    pub fn with_key(key: &SecretString) -> Result<Self, InvalidKey> {
        let key = STANDARD.decode(key.expose_secret().trim()).map_err(|_| InvalidKey)?;
        let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| InvalidKey)?;
        Ok(Self { cipher: Some(cipher) })
    }

    fn bound_to(device: DeviceId, key: &[u8]) -> Vec<u8> {
        [device.as_bytes().as_slice(), key].concat()
    }

    /// A value as it is stored.
    pub(crate) fn seal(&self, device: DeviceId, key: &[u8], value: &[u8]) -> Vec<u8> {
        let Some(cipher) = &self.cipher else {
            return [&[PLAIN], value].concat();
        };
        let mut nonce = [0; NONCE];
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut nonce)
            .expect("the operating system gives random bytes");
        let payload = Payload {
            msg: value,
            aad: &Self::bound_to(device, key),
        };
        let sealed = cipher
            .encrypt(&nonce.into(), payload)
            .expect("values are far shorter than what the cipher takes");
        [&[SEALED], nonce.as_slice(), &sealed].concat()
    }

    /// A stored value as it was.
    pub(crate) fn open(&self, device: DeviceId, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, OpenError> {
        match (stored.split_first(), &self.cipher) {
            (Some((&PLAIN, value)), _) => Ok(value.to_vec()),
            (Some((&SEALED, _)), None) => Err(OpenError::NoKey),
            (Some((&SEALED, sealed)), Some(cipher)) => {
                let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(OpenError::Unreadable)?;
                let payload = Payload {
                    msg: sealed,
                    aad: &Self::bound_to(device, key),
                };
                cipher
                    .decrypt(&(*nonce).into(), payload)
                    .map_err(|_| OpenError::WrongKey)
            }
            _ => Err(OpenError::Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(byte: u8) -> Vault {
        Vault::with_key(&STANDARD.encode([byte; 32]).into()).unwrap()
    }

    #[test]
    fn a_sealed_value_shows_nothing_and_opens_with_its_key_at_its_place_alone() {
        let (device, other) = (DeviceId::MIN, DeviceId::from_slice(&[1; 16]).unwrap());
        let stored = vault(1).seal(device, b"key", b"a very secret value");
        assert!(!stored.windows(6).any(|part| part == b"secret"));
        assert_eq!(vault(1).open(device, b"key", &stored).unwrap(), b"a very secret value");
        assert_eq!(vault(2).open(device, b"key", &stored), Err(OpenError::WrongKey));
        assert_eq!(vault(1).open(other, b"key", &stored), Err(OpenError::WrongKey));
        assert_eq!(vault(1).open(device, b"yek", &stored), Err(OpenError::WrongKey));
        assert_eq!(Vault::plain().open(device, b"key", &stored), Err(OpenError::NoKey));
        assert_ne!(
            vault(1).seal(device, b"key", b"a very secret value"),
            stored,
            "no nonce is used twice"
        );
        for cut in [0, 1, 10, stored.len() - 1] {
            vault(1).open(device, b"key", &stored[..cut]).unwrap_err();
        }
    }

    #[test]
    fn what_was_written_before_a_key_was_set_stays_readable() {
        let stored = Vault::plain().seal(DeviceId::MIN, b"key", b"value");
        assert_eq!(vault(1).open(DeviceId::MIN, b"key", &stored).unwrap(), b"value");
    }

    #[test]
    fn a_key_is_thirty_two_bytes_in_base64() {
        for bad in [
            "",
            "abc",
            &STANDARD.encode([1; 31]),
            &STANDARD.encode([1; 33]),
            "not base64!",
        ] {
            assert_eq!(
                Vault::with_key(&bad.to_owned().into()).unwrap_err(),
                InvalidKey,
                "{bad}"
            );
        }
    }

    #[test]
    fn a_sealed_value_of_the_longest_length_fits_into_a_row() {
        let stored = vault(1).seal(DeviceId::MIN, b"key", &vec![0; VALUE_BYTES_MAX]);
        assert_eq!(stored.len(), SESSION_VALUE_BYTES_MAX);
    }
}
