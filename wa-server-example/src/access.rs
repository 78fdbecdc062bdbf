//! People: made, found and given new passwords, by the server and by the command line alike.

use secrecy::{ExposeSecret, SecretString};
use wa_core::domain::access::{Role, User, UserSettings};
use wa_core::id::{IdSource, UserId};
use wa_core::store::{AppStore, PageRequest, StoreError};
use wa_core::time::Timestamp;

use crate::password::{self, Passwords};
use crate::settings::Settings;

/// Longest login, in characters.
pub const LOGIN_CHARS_MAX: usize = 254;
/// Longest name of a user, in characters.
pub const NAME_CHARS_MAX: usize = 100;

/// A login as it is kept: trimmed and lower case.
///
/// # Errors
/// What is expected, to complete a sentence that begins with the field's name.
pub fn login_name(text: &str) -> Result<String, String> {
    let login = text.trim().to_lowercase();
    let fits = (1..=LOGIN_CHARS_MAX).contains(&login.chars().count())
        && !login.contains(|c: char| c.is_control() || c.is_whitespace() || c == ':');
    if fits {
        Ok(login)
    } else {
        Err(format!(
            "must have 1 to {LOGIN_CHARS_MAX} characters without blanks and colons"
        ))
    }
}

/// A user to be added.
#[derive(Debug)]
pub struct NewUser {
    /// As [`login_name`] gives it.
    pub login: String,
    /// Shown to others; the login when it is empty.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Their password.
    pub password: SecretString,
}

/// Adds a user with the defaults of the settings.
///
/// # Errors
/// `Conflict` when the login is taken.
pub async fn add_user(
    store: &dyn AppStore,
    passwords: &Passwords,
    ids: &IdSource,
    settings: &Settings,
    new: NewUser,
    now: Timestamp,
) -> Result<User, StoreError> {
    let name = if new.name.trim().is_empty() {
        new.login.clone()
    } else {
        new.name.trim().to_owned()
    };
    let user = User {
        id: UserId::new(ids, now),
        login: new.login,
        name,
        role: new.role,
        password_hash: passwords.hash(new.password).await,
        active: true,
        settings: UserSettings {
            time_zone: settings.time_zone,
            region: settings.region,
            ..UserSettings::default()
        },
        created_at: now,
        updated_at: now,
        version: 1,
    };
    store.insert_user(&user).await?;
    Ok(user)
}

/// Gives a user a new password and ends all their logins.
///
/// # Errors
/// `Conflict` when the user was changed in the meantime.
pub async fn set_password(
    store: &dyn AppStore,
    passwords: &Passwords,
    mut user: User,
    password: SecretString,
    now: Timestamp,
) -> Result<(), StoreError> {
    user.password_hash = passwords.hash(password).await;
    user.updated_at = now;
    store.update_user(&user).await?;
    store.delete_sessions_of(user.id).await?;
    Ok(())
}

/// The first admin, when one was just made.
#[derive(Debug)]
pub struct FirstAdmin {
    /// The login.
    pub login: String,
    /// The password that was made, to be shown once; `None` when a setting gave it.
    pub generated: Option<SecretString>,
}

/// Makes the first admin when there is no user, and the users of `APP_BASIC_AUTH` that do not exist yet. Of several nodes that
/// start at once, one makes each.
///
/// # Errors
/// As the store's.
pub async fn first_users(
    store: &dyn AppStore,
    passwords: &Passwords,
    ids: &IdSource,
    settings: &Settings,
    now: Timestamp,
) -> Result<Option<FirstAdmin>, StoreError> {
    let anybody = !store.users(&PageRequest::first(1)).await?.rows.is_empty();
    let mut first = None;
    if !anybody {
        let given = settings.first_admin.password.clone();
        let password = given.clone().unwrap_or_else(password::generate);
        let new = NewUser {
            login: settings.first_admin.name.clone(),
            name: String::new(),
            role: Role::Admin,
            password: password.clone(),
        };
        let admin = unless_there(add_user(store, passwords, ids, settings, new, now).await)?;
        first = admin.map(|admin| FirstAdmin {
            login: admin.login,
            generated: given.is_none().then_some(password),
        });
    }
    for login in &settings.basic_auth {
        let Some(password) = &login.password else { continue };
        if store.user_by_login(&login.name).await?.is_none() {
            let new = NewUser {
                login: login.name.clone(),
                name: String::new(),
                role: Role::User,
                password: SecretString::from(password.expose_secret()),
            };
            unless_there(add_user(store, passwords, ids, settings, new, now).await)?;
        }
    }
    Ok(first)
}

/// The user that was added; `None` when another node that starts was quicker.
fn unless_there(added: Result<User, StoreError>) -> Result<Option<User>, StoreError> {
    match added {
        Ok(user) => Ok(Some(user)),
        Err(error) if error.is_conflict() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use wa_core::store::{AccessStore as _, MemoryStore};

    use super::*;
    use crate::settings::Source;

    #[tokio::test]
    async fn of_two_nodes_that_start_at_once_one_makes_the_first_users_and_both_go_on() {
        let store = MemoryStore::new();
        let (passwords, ids) = (Passwords::new(), IdSource::from_entropy());
        let source = Source::default().with("APP_BASIC_AUTH", "ann:correct horse");
        let settings = Settings::read(&source).unwrap();
        // Both look before either has hashed a password.
        let start = || first_users(&store, &passwords, &ids, &settings, Timestamp::EPOCH);
        let (one, other) = tokio::join!(start(), start());
        assert_eq!([one.unwrap(), other.unwrap()].iter().flatten().count(), 1);
        let users = store.users(&PageRequest::first(10)).await.unwrap().rows;
        let mut logins: Vec<_> = users.into_iter().map(|user| user.login).collect();
        logins.sort_unstable();
        assert_eq!(logins, ["admin", "ann"]);
    }
}
