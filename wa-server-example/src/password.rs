//! Passwords: hashed with argon2id, away from the async threads, and only a few at a time.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

/// Fewest characters of a password.
pub const CHARS_MIN: usize = 8;
/// Most characters of a password.
pub const CHARS_MAX: usize = 256;
/// Most passwords hashed at a time: each takes 19 MiB and a core.
pub const AT_A_TIME_MAX: usize = 2;

/// Whether a new password has an acceptable length.
///
/// # Errors
/// What is expected, to complete a sentence that begins with the field's name.
pub fn check_length(password: &str) -> Result<(), String> {
    if (CHARS_MIN..=CHARS_MAX).contains(&password.chars().count()) {
        Ok(())
    } else {
        Err(format!("must have {CHARS_MIN} to {CHARS_MAX} characters"))
    }
}

/// A password that nobody can guess, of letters and digits that are not mistaken for each other.
#[must_use]
pub fn generate() -> SecretString {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz234567890";
    let bytes: [u8; 20] = random();
    let text: String = bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect();
    SecretString::from(text)
}

/// Random bytes of the operating system.
///
/// # Panics
/// When the operating system gives no randomness.
#[must_use]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A random token for URLs and cookies: 256 bits as 43 letters, digits, `-` and `_`.
#[must_use]
pub fn token() -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random::<32>())
}

/// Hashes and verifies passwords.
#[derive(Debug)]
pub struct Passwords {
    turns: Semaphore,
    /// Verified when there is no such user, so that the time tells nothing.
    nobody: SecretString,
}

impl Passwords {
    /// Ready to hash.
    #[must_use]
    pub fn new() -> Self {
        Self {
            turns: Semaphore::new(AT_A_TIME_MAX),
            nobody: hash_now(&generate()),
        }
    }

    /// The argon2id hash of a password in PHC form, with a fresh salt.
    pub async fn hash(&self, password: SecretString) -> SecretString {
        let _turn = self.turns.acquire().await;
        tokio::task::spawn_blocking(move || hash_now(&password))
            .await
            .expect("hashing does not panic")
    }

    /// Whether a password belongs to a hash; without a hash it takes as long and is `false`.
    pub async fn verify(&self, password: SecretString, hash: Option<SecretString>) -> bool {
        if password.expose_secret().chars().count() > CHARS_MAX {
            return false;
        }
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.clone());
        let _turn = self.turns.acquire().await;
        let fits = tokio::task::spawn_blocking(move || {
            PasswordHash::new(hash.expose_secret()).is_ok_and(|hash| {
                Argon2::default()
                    .verify_password(password.expose_secret().as_bytes(), &hash)
                    .is_ok()
            })
        })
        .await
        .unwrap_or(false);
        fits && known
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

/// Hashes on this thread.
///
/// # Panics
/// Never: the parameters are the library's own.
#[must_use]
pub fn hash_now(password: &SecretString) -> SecretString {
    let hash: PasswordHash = Argon2::default()
        .hash_password_with_salt(password.expose_secret().as_bytes(), &random::<16>())
        .expect("the default parameters of argon2 are valid");
    SecretString::from(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_is_argon2id_and_fits_its_password_alone() {
        let passwords = Passwords::new();
        let hash = passwords.hash(SecretString::from("correct horse")).await;
        assert!(hash.expose_secret().starts_with("$argon2id$"));
        assert!(
            passwords
                .verify(SecretString::from("correct horse"), Some(hash.clone()))
                .await
        );
        assert!(!passwords.verify(SecretString::from("wrong horse"), Some(hash)).await);
        assert!(!passwords.verify(SecretString::from("correct horse"), None).await);
    }

    #[test]
    fn made_passwords_differ_and_are_long_enough() {
        assert_ne!(generate().expose_secret(), generate().expose_secret());
        assert!(check_length(generate().expose_secret()).is_ok());
        assert!(check_length("seven77").is_err());
    }
}
