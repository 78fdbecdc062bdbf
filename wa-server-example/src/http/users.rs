//! What users choose for themselves, and what admins do for users.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::access::{Role, User, UserSettings};
use wa_core::domain::phone::Region;
use wa_core::domain::schedule::TimeZone;
use wa_core::domain::suppression::OptOutWords;
use wa_core::id::UserId;

use super::auth::UserView;
use super::envelope::{Envelope, Listed, Nothing, Reply};
use super::error::{ApiError, ApiResult, FieldProblem};
use super::extract::{Admin, Body, Caller, Ids, Locked, PageQuery, Query};
use super::lead_webhook::token_digest;
use crate::access::{self, NewUser};
use crate::password;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(settings, edit_settings))
        .routes(routes!(make_webhook_token, drop_webhook_token))
        .routes(routes!(change_password))
        .routes(routes!(users, add_user))
        .routes(routes!(activate))
        .routes(routes!(deactivate))
        .routes(routes!(reset_password))
}

/// What a user chose.
#[derive(Debug, Serialize, ToSchema)]
pub struct SettingsView {
    /// Zone of dates and greetings.
    pub time_zone: String,
    /// Region of numbers without a country code.
    pub region: String,
    /// Words that opt a person out, each as a whole message.
    pub opt_out_words: Vec<String>,
    /// Whether new campaigns vary letters.
    pub randomizer: bool,
    /// Whether the lead webhook asks for a token.
    pub webhook_token_required: bool,
}

impl From<&UserSettings> for SettingsView {
    fn from(settings: &UserSettings) -> Self {
        Self {
            time_zone: settings.time_zone.to_string(),
            region: settings.region.to_string(),
            opt_out_words: settings.opt_out_words.iter().map(str::to_owned).collect(),
            randomizer: settings.randomizer,
            webhook_token_required: settings.webhook_token_hash.is_some(),
        }
    }
}

/// What a user chooses; fields that are not named stay as they are.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SettingsBody {
    /// Zone of dates and greetings, by its IANA name.
    #[schema(value_type = Option<String>)]
    time_zone: Option<TimeZone>,
    /// Region of numbers without a country code, two letters.
    #[schema(value_type = Option<String>)]
    region: Option<Region>,
    /// Words that opt a person out, at most 50 of at most 40 characters.
    opt_out_words: Option<Vec<String>>,
    /// Whether new campaigns vary letters.
    randomizer: Option<bool>,
}

/// What the user chose.
#[utoipa::path(get, path = "/api/settings", tag = "access",
    responses((status = 200, description = "The settings", body = Envelope<SettingsView>)))]
async fn settings(caller: Caller) -> ApiResult<SettingsView> {
    Ok(Reply::ok("settings", (&caller.user.settings).into()))
}

/// Change what the user chose.
#[utoipa::path(put, path = "/api/settings", tag = "access", request_body = SettingsBody,
    responses((status = 200, description = "The settings", body = Envelope<SettingsView>)))]
async fn edit_settings(caller: Caller, Body(body): Body<SettingsBody>) -> ApiResult<SettingsView> {
    let mut settings = caller.user.settings.clone();
    settings.time_zone = body.time_zone.unwrap_or(settings.time_zone);
    settings.region = body.region.unwrap_or(settings.region);
    settings.randomizer = body.randomizer.unwrap_or(settings.randomizer);
    if let Some(words) = body.opt_out_words {
        let kept = OptOutWords::new(words.iter().map(String::as_str));
        let mut folded: Vec<_> = words.iter().map(|word| word.trim().to_lowercase()).collect();
        folded.sort_unstable();
        folded.dedup();
        if folded.iter().map(String::as_str).ne(kept.iter()) {
            let expected = format!(
                "must be at most {} words of 1 to {} characters",
                OptOutWords::COUNT_MAX,
                OptOutWords::LEN_MAX
            );
            return Err(ApiError::field("opt_out_words", "invalid", expected));
        }
        settings.opt_out_words = kept;
    }
    save(&caller, settings, "settings changed").await
}

async fn save(caller: &Caller, settings: UserSettings, message: &str) -> ApiResult<SettingsView> {
    let user = User {
        settings,
        updated_at: caller.clock.wall(),
        ..caller.user.clone()
    };
    caller.store.update_user(&user).await?;
    Ok(Reply::ok(message, (&user.settings).into()))
}

/// A token that is shown once.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenView {
    /// The token.
    pub token: String,
}

/// Require a token of the lead webhook; it is made and shown once, and takes the place of an older one.
#[utoipa::path(post, path = "/api/settings/webhook-token", tag = "access",
    responses((status = 200, description = "The token", body = Envelope<TokenView>)))]
async fn make_webhook_token(caller: Caller) -> ApiResult<TokenView> {
    let token = password::token();
    let settings = UserSettings {
        webhook_token_hash: Some(token_digest(&token)),
        ..caller.user.settings.clone()
    };
    save(&caller, settings, "").await?;
    Ok(Reply::ok("keep the token: it is shown only now", TokenView { token }))
}

/// Require no token of the lead webhook any more.
#[utoipa::path(delete, path = "/api/settings/webhook-token", tag = "access",
    responses((status = 200, description = "The settings", body = Envelope<SettingsView>)))]
async fn drop_webhook_token(caller: Caller) -> ApiResult<SettingsView> {
    let settings = UserSettings {
        webhook_token_hash: None,
        ..caller.user.settings.clone()
    };
    save(&caller, settings, "the lead webhook asks for no token").await
}

/// A change of the own password.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordBody {
    /// The password as it is.
    #[schema(format = Password)]
    #[serde(default)]
    current: String,
    /// The password as it is to be, 8 to 256 characters.
    #[schema(format = Password)]
    #[serde(default)]
    new: String,
}

/// Change the own password; all logins end, also this one.
#[utoipa::path(post, path = "/api/password", tag = "access", request_body = PasswordBody,
    responses((status = 200, description = "Changed", body = Envelope<Nothing>)))]
async fn change_password(caller: Caller, Body(body): Body<PasswordBody>) -> ApiResult<Nothing> {
    password::check_length(&body.new).map_err(|expected| ApiError::field("new", "invalid", expected))?;
    let tries = &caller.limits.login;
    let taken = tries.take_account(&caller.user.login, caller.clock.monotonic());
    taken.map_err(ApiError::too_many)?;
    let hash = Some(caller.user.password_hash.clone());
    if !caller.passwords.verify(SecretString::from(body.current), hash).await {
        return Err(ApiError::field("current", "invalid", "must be the password as it is"));
    }
    let now = caller.clock.wall();
    let new = SecretString::from(body.new);
    access::set_password(&*caller.store, &caller.passwords, caller.user.clone(), new, now).await?;
    caller.live.login_changed(caller.user.id);
    Ok(Reply::done("the password was changed: log in again"))
}

/// The users; for admins.
#[utoipa::path(get, path = "/api/users", tag = "access", params(PageQuery),
    responses((status = 200, description = "A page of users", body = Envelope<Listed<UserView>>)))]
async fn users(Admin(caller): Admin, Query(page): Query<PageQuery>) -> ApiResult<Listed<UserView>> {
    let page = caller.store.users(&page.request()?).await?;
    Ok(Reply::ok("users", Listed::of(page, |user| UserView::of(&user))))
}

/// A user to be added.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserBody {
    /// The login.
    #[serde(default)]
    login: String,
    /// The name shown; the login when it is not given.
    #[serde(default)]
    name: String,
    /// Whether it is an admin.
    #[serde(default)]
    admin: bool,
}

/// A user with a password that is shown once.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserPasswordView {
    /// The user.
    pub user: UserView,
    /// The password.
    pub password: String,
}

/// Add a user; the password is made and shown once. For admins.
#[utoipa::path(post, path = "/api/users", tag = "access", request_body = UserBody,
    responses((status = 200, description = "The user and the password", body = Envelope<UserPasswordView>)))]
async fn add_user(Admin(caller): Admin, Body(body): Body<UserBody>) -> ApiResult<UserPasswordView> {
    let mut problems = Vec::new();
    let login = access::login_name(&body.login);
    if let Err(expected) = &login {
        problems.push(FieldProblem {
            field: "login".to_owned(),
            code: "invalid".to_owned(),
            message: format!("login {expected}"),
        });
    }
    if body.name.chars().count() > access::NAME_CHARS_MAX || body.name.chars().any(char::is_control) {
        problems.push(FieldProblem {
            field: "name".to_owned(),
            code: "too_long".to_owned(),
            message: format!("name must have at most {} characters", access::NAME_CHARS_MAX),
        });
    }
    let (Ok(login), true) = (login, problems.is_empty()) else {
        return Err(ApiError::fields(problems));
    };
    let made = password::generate();
    let new = NewUser {
        login,
        name: body.name,
        role: if body.admin { Role::Admin } else { Role::User },
        password: made.clone(),
    };
    let now = caller.clock.wall();
    let user = access::add_user(
        &*caller.store,
        &caller.passwords,
        &caller.ids,
        &caller.settings,
        new,
        now,
    )
    .await
    .map_err(|error| {
        if error.is_conflict() {
            ApiError::conflict("login is taken")
        } else {
            error.into()
        }
    })?;
    Ok(Reply::ok(
        "user added: the password is shown only now",
        with_password(&user, &made),
    ))
}

fn with_password(user: &User, password: &SecretString) -> UserPasswordView {
    UserPasswordView {
        user: UserView::of(user),
        password: password.expose_secret().to_owned(),
    }
}

/// Give a user a new password, shown once; all their logins end. For admins.
#[utoipa::path(post, path = "/api/users/{id}/reset-password", tag = "access",
    responses((status = 200, description = "The user and the password", body = Envelope<UserPasswordView>)))]
async fn reset_password(Admin(caller): Admin, Ids(id): Ids<UserId>) -> ApiResult<UserPasswordView> {
    let user = caller.store.user(id).await?;
    let made = password::generate();
    let view = with_password(&user, &made);
    access::set_password(&*caller.store, &caller.passwords, user, made, caller.clock.wall()).await?;
    caller.live.login_changed(id);
    Ok(Reply::ok("the password is shown only now", view))
}

/// Let a user log in again. For admins.
#[utoipa::path(post, path = "/api/users/{id}/activate", tag = "access",
    responses((status = 200, description = "The user", body = Envelope<UserView>)))]
async fn activate(Admin(caller): Admin, Ids(id): Ids<UserId>) -> ApiResult<UserView> {
    set_active(&caller, id, true).await
}

/// Keep a user from logging in; all their logins end, their campaigns go on. For admins.
#[utoipa::path(post, path = "/api/users/{id}/deactivate", tag = "access",
    responses((status = 200, description = "The user", body = Envelope<UserView>)))]
async fn deactivate(Admin(caller): Admin, Ids(id): Ids<UserId>) -> ApiResult<UserView> {
    if id == caller.user.id {
        return Err(ApiError::conflict("nobody deactivates themselves"));
    }
    set_active(&caller, id, false).await
}

async fn set_active(caller: &Caller, id: UserId, active: bool) -> ApiResult<UserView> {
    let mut user = caller.store.user(id).await?;
    user.active = active;
    user.updated_at = caller.clock.wall();
    caller.store.update_user(&user).await?;
    if !active {
        caller.store.delete_sessions_of(id).await?;
        caller.live.login_changed(id);
    }
    Ok(Reply::ok(
        if active { "activated" } else { "deactivated" },
        UserView::of(&user),
    ))
}
