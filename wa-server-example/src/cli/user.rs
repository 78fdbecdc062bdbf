//! `user`: people and their passwords.

use clap::Subcommand;
use secrecy::{ExposeSecret, SecretString};
use wa_core::domain::access::Role;
use wa_core::id::IdSource;

use super::{Failure, Offline, say};
use crate::access::{self, NewUser};
use crate::password::{self, Passwords};
use crate::settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user; the password is made and shown once, or read from the variable USER_PASSWORD.
    Add {
        /// The login.
        login: String,
        /// The name shown; the login when it is not given.
        #[arg(long, default_value = "")]
        name: String,
        /// Makes an admin.
        #[arg(long)]
        admin: bool,
    },
    /// Give a user a new password, shown once, or read from the variable USER_PASSWORD; ends all their logins.
    ResetPassword {
        /// The login.
        login: String,
    },
}

/// The password of the environment, or one that is made; with what to tell about it.
fn choose() -> Result<(SecretString, String), Failure> {
    match std::env::var("USER_PASSWORD").ok().filter(|text| !text.is_empty()) {
        Some(given) => {
            password::check_length(&given).map_err(|problem| format!("USER_PASSWORD {problem}"))?;
            Ok((SecretString::from(given), "the password of USER_PASSWORD".to_owned()))
        }
        None => {
            let made = password::generate();
            let shown = format!("password {} (shown only now)", made.expose_secret());
            Ok((made, shown))
        }
    }
}

pub(super) async fn run(command: UserCommand, settings: Settings) -> Result<(), Failure> {
    let offline = Offline::open(settings).await?;
    let passwords = Passwords::new();
    let (secret, shown) = choose()?;
    match command {
        UserCommand::Add { login, name, admin } => {
            let login = access::login_name(&login).map_err(|problem| format!("login {problem}"))?;
            let role = if admin { Role::Admin } else { Role::User };
            let new = NewUser {
                login: login.clone(),
                name,
                role,
                password: secret,
            };
            let ids = IdSource::from_entropy();
            access::add_user(&*offline.store, &passwords, &ids, &offline.settings, new, offline.now())
                .await
                .map_err(|error| {
                    if error.is_conflict() {
                        Failure::from(format!("login {login} is taken"))
                    } else {
                        error.into()
                    }
                })?;
            say(&format!("Added {login} with {shown}"));
        }
        UserCommand::ResetPassword { login } => {
            let login = access::login_name(&login).map_err(|problem| format!("login {problem}"))?;
            let user = offline
                .store
                .user_by_login(&login)
                .await?
                .ok_or_else(|| format!("there is no user {login}"))?;
            access::set_password(&*offline.store, &passwords, user, secret, offline.now()).await?;
            say(&format!("{login} has {shown}; all logins ended"));
        }
    }
    Ok(())
}
