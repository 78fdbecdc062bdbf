//! Who asks: login by cookie or by HTTP basic auth, and the ways in and out.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::access::{LoginSession, Role, User};
use wa_core::id::UserId;
use wa_core::store::StoreError;
use wa_core::time::Timestamp;

use super::basic::BasicKey;
use super::envelope::{Envelope, Nothing, Reply};
use super::error::{ApiError, ApiResult, FieldProblem};
use super::extract::{Body, Caller, Locked, Open, header_text};
use crate::access::{self, NewUser};
use crate::app::App;
use crate::password;

/// Name of the cookie.
pub const COOKIE: &str = "wa_session";
/// How long a login lasts after its last use: 24 h.
pub const SESSION_FOR: Duration = Duration::from_secs(24 * 3_600);
/// How often the end of a login is moved at most, so that reading does not become writing: 5 min.
pub const EXTEND_EVERY: Duration = Duration::from_secs(300);

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(logout))
        .routes(routes!(register))
        .routes(routes!(login_again))
        .routes(routes!(logout_again))
        .routes(routes!(current_user))
        .routes(routes!(user_info))
}

/// Finds out who asks.
pub(super) async fn authenticate(
    app: &App,
    parts: &Parts,
    address: IpAddr,
) -> Result<(User, Option<[u8; 32]>), ApiError> {
    let now = app.clock.wall();
    if let Some((login, password)) = basic(&parts.headers) {
        let user = by_basic_auth(app, address, &login, password).await?;
        return Ok((user, None));
    }
    let Some(token) = cookie(&parts.headers) else {
        return Err(ApiError::unauthorized("log in first: POST /api/login"));
    };
    refuse_foreign(app, parts)?;
    let hash = token_hash(&token);
    let expired = || ApiError::unauthorized("the login has ended: log in again");
    let session = app.store.session(&hash, now).await?.ok_or_else(expired)?;
    let user = match app.store.user(session.user_id).await {
        Ok(user) if user.active => user,
        Ok(_) => return Err(expired()),
        Err(error) if error.is_not_found() => return Err(expired()),
        Err(error) => return Err(error.into()),
    };
    let expires_at = now + SESSION_FOR;
    if expires_at.since(session.expires_at) >= EXTEND_EVERY {
        app.store.extend_session(&hash, expires_at).await?;
    }
    Ok((user, Some(hash)))
}

/// A page of another site must not act with the cookie of its visitor. Browsers say where a request comes from; a request
/// that says nothing was not made by a form, or not by a browser of this century.
fn refuse_foreign(app: &App, parts: &Parts) -> Result<(), ApiError> {
    if matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    refuse_foreign_form(app, &parts.headers)
}

/// Refuses what the page of another site asks for, and what it may have asked for by a form: a body as forms send it that does not
/// say where it comes from.
fn refuse_foreign_form(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    if refuse_foreign_page(app, headers)? {
        return Ok(());
    }
    let content_type = header_text(headers, &header::CONTENT_TYPE).unwrap_or_default();
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let as_forms_do = matches!(
        essence.as_str(),
        "application/x-www-form-urlencoded" | "multipart/form-data" | "text/plain"
    );
    if as_forms_do {
        return Err(ApiError::forbidden(
            "with a body as forms send it, the header Origin or Sec-Fetch-Site must say where it comes from; send JSON with the \
             header Content-Type: application/json, or use basic auth",
        ));
    }
    Ok(())
}

/// Refuses what the page of another site asks for; tells whether the request says where it comes from at all.
///
/// # Errors
/// `FORBIDDEN`
pub(super) fn refuse_foreign_page(app: &App, headers: &HeaderMap) -> Result<bool, ApiError> {
    if let Some(origin) = header_text(headers, &header::ORIGIN) {
        let own = app
            .settings
            .public_base_url
            .as_ref()
            .map(|url| url.origin().ascii_serialization());
        let host = header_text(headers, &header::HOST).unwrap_or_default();
        let same_host = origin.split_once("://").is_some_and(|(_, rest)| rest == host);
        let known =
            same_host || own.as_deref() == Some(origin) || app.settings.cors_origins.iter().any(|one| one == origin);
        return if known {
            Ok(true)
        } else {
            Err(ApiError::forbidden("requests from pages of another origin are refused"))
        };
    }
    match headers.get("sec-fetch-site").and_then(|value| value.to_str().ok()) {
        Some("same-origin" | "none") => Ok(true),
        Some(_) => Err(ApiError::forbidden("requests from pages of another site are refused")),
        None => Ok(false),
    }
}

/// Whether a login that was found good earlier still holds: the session is there, or the password is the same, and the user may
/// log in.
///
/// # Errors
/// The store could not be asked.
pub(super) async fn still_holds(
    app: &App,
    user_id: UserId,
    version: i64,
    session: Option<&[u8; 32]>,
) -> Result<bool, StoreError> {
    let user = match app.store.user(user_id).await {
        Ok(user) if user.active => user,
        Ok(_) => return Ok(false),
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error),
    };
    match session {
        Some(hash) => Ok(app.store.session(hash, app.clock.wall()).await?.is_some()),
        None => Ok(user.version == version),
    }
}

fn basic(headers: &HeaderMap) -> Option<(String, SecretString)> {
    let value = header_text(headers, &header::AUTHORIZATION)?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (login, password) = text.split_once(':')?;
    Some((login.to_owned(), SecretString::from(password)))
}

fn cookie(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| {
            let (name, value) = pair.trim().split_once('=')?;
            (name == COOKIE).then(|| value.to_owned())
        })
}

/// What is kept of a token.
pub(crate) fn token_hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Verifies a password under the limits on tries; a success gives the tries back.
async fn verify(app: &App, address: IpAddr, login: &str, password: SecretString) -> Result<User, ApiError> {
    let wrong = || ApiError::unauthorized("login or password is wrong");
    let login = access::login_name(login).map_err(|_| wrong())?;
    let tries = &app.limits.login;
    let tried = tries
        .take(address, &login, app.clock.monotonic())
        .map_err(ApiError::too_many)?;
    let user = app
        .store
        .user_by_login(&login)
        .await
        .inspect_err(|_| tries.give_back(&tried))?;
    let hash = user.as_ref().map(|user| user.password_hash.clone());
    let fits = app.passwords.verify(password, hash).await;
    match user {
        Some(user) if fits && user.active => {
            tries.succeeded(&tried);
            Ok(user)
        }
        _ => Err(wrong()),
    }
}

/// Requests that come together with the same password wait for one verification, which is one try.
async fn by_basic_auth(app: &App, address: IpAddr, login: &str, password: SecretString) -> Result<User, ApiError> {
    let key = app.basic.key(login, &password);
    if let Some(user) = remembered(app, key).await? {
        return Ok(user);
    }
    let joined = app.basic.verification(address, key);
    let mut found = joined.verification.lock().await;
    if let Some(found) = &*found {
        return found.clone();
    }
    // Another verification may have ended between the question and the lock.
    if let Some(user) = remembered(app, key).await? {
        return Ok(user);
    }
    let result = verify(app, address, login, password).await;
    if let Ok(user) = &result {
        app.basic.remember(key, user.id, user.version, app.clock.monotonic());
    }
    joined.close();
    *found = Some(result.clone());
    result
}

/// The user of a password that was verified a moment ago, unless the user was changed since.
async fn remembered(app: &App, key: BasicKey) -> Result<Option<User>, ApiError> {
    let Some((id, version)) = app.basic.find(key, app.clock.monotonic()) else {
        return Ok(None);
    };
    match app.store.user(id).await {
        Ok(user) => Ok(Some(user).filter(|user| user.active && user.version == version)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Body of a login. The account may be given as `login`, `username` or `email`.
#[derive(Deserialize, ToSchema)]
pub struct LoginBody {
    /// The login.
    #[serde(default, alias = "username", alias = "email")]
    login: Option<String>,
    /// The password.
    #[serde(default)]
    #[schema(format = Password)]
    password: Option<String>,
}

/// Who is logged in.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserView {
    /// Its id.
    pub id: String,
    /// The login.
    pub login: String,
    /// The name shown.
    pub name: String,
    /// `admin` or `user`.
    pub role: String,
    /// Zone of dates and greetings.
    pub time_zone: String,
    /// When it was created.
    pub created_at: String,
}

impl UserView {
    pub(super) fn of(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            login: user.login.clone(),
            name: user.name.clone(),
            role: super::view::word(&user.role),
            time_zone: user.settings.time_zone.to_string(),
            created_at: user.created_at.to_string(),
        }
    }
}

/// Log in; the answer sets the session cookie.
#[utoipa::path(post, path = "/api/login", tag = "access", request_body = LoginBody,
    responses((status = 200, description = "Logged in", body = Envelope<UserView>)))]
async fn login(open: Open, headers: HeaderMap, body: Body<LoginBody>) -> Result<Response, ApiError> {
    log_in(open, &headers, body).await
}

/// Log in, under its second name.
#[utoipa::path(post, path = "/api/auth/login", tag = "access", request_body = LoginBody,
    responses((status = 200, description = "Logged in", body = Envelope<UserView>)))]
async fn login_again(open: Open, headers: HeaderMap, body: Body<LoginBody>) -> Result<Response, ApiError> {
    log_in(open, &headers, body).await
}

async fn log_in(open: Open, headers: &HeaderMap, Body(body): Body<LoginBody>) -> Result<Response, ApiError> {
    // Else a page of another site could log its visitor in as somebody else.
    refuse_foreign_form(&open, headers)?;
    let (Some(login), Some(password)) = (body.login, body.password) else {
        return Err(ApiError::fields(vec![
            FieldProblem {
                field: "login".to_owned(),
                code: "required".to_owned(),
                message: "login is required".to_owned(),
            },
            FieldProblem {
                field: "password".to_owned(),
                code: "required".to_owned(),
                message: "password is required".to_owned(),
            },
        ]));
    };
    let user = verify(&open, open.address, &login, SecretString::from(password)).await?;
    let cookie = open_session(&open, user.id, open.clock.wall()).await?;
    Ok(with_cookie(cookie, Reply::ok("logged in", UserView::of(&user))))
}

/// Makes a login and gives its cookie.
async fn open_session(app: &App, user_id: UserId, now: Timestamp) -> Result<HeaderValue, ApiError> {
    let token = password::token();
    let session = LoginSession {
        token_hash: token_hash(&token),
        user_id,
        created_at: now,
        expires_at: now + SESSION_FOR,
    };
    app.store.insert_session(&session).await?;
    app.store.prune_sessions(now).await?;
    // The cookie outlives the login by the browser's wish; the server decides when it ends.
    Ok(cookie_value(app, &token, Duration::from_secs(30 * 24 * 3_600)))
}

fn cookie_value(app: &App, token: &str, max_age: Duration) -> HeaderValue {
    let secure = if app.settings.is_https() { "; Secure" } else { "" };
    let text = format!(
        "{COOKIE}={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age={}{secure}",
        max_age.as_secs()
    );
    HeaderValue::from_str(&text).expect("tokens are letters, digits, - and _")
}

fn with_cookie(cookie: HeaderValue, reply: impl IntoResponse) -> Response {
    let mut response = reply.into_response();
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
}

/// Log out; ends this login.
#[utoipa::path(post, path = "/api/logout", tag = "access",
    responses((status = 200, description = "Logged out", body = Envelope<Nothing>)))]
async fn logout(caller: Caller) -> Result<Response, ApiError> {
    log_out(caller).await
}

/// Log out, under its second name.
#[utoipa::path(post, path = "/api/auth/logout", tag = "access",
    responses((status = 200, description = "Logged out", body = Envelope<Nothing>)))]
async fn logout_again(caller: Caller) -> Result<Response, ApiError> {
    log_out(caller).await
}

async fn log_out(caller: Caller) -> Result<Response, ApiError> {
    if let Some(hash) = &caller.session {
        caller.store.delete_session(hash).await?;
        caller.live.login_changed(caller.user.id);
    }
    let cookie = cookie_value(&caller, "", Duration::ZERO);
    Ok(with_cookie(cookie, Reply::done("logged out")))
}

/// Body of a registration.
#[derive(Deserialize, ToSchema)]
pub struct RegisterBody {
    /// The login; an e-mail address or a name without blanks.
    #[serde(default, alias = "username", alias = "email")]
    login: Option<String>,
    /// The name shown.
    #[serde(default, alias = "full_name", alias = "fullname")]
    name: Option<String>,
    /// The password, 8 to 256 characters.
    #[serde(default)]
    #[schema(format = Password)]
    password: Option<String>,
}

/// Register as a user; only where the setting REGISTRATION allows it.
#[utoipa::path(post, path = "/api/register", tag = "access", request_body = RegisterBody,
    responses((status = 200, description = "Registered and logged in", body = Envelope<UserView>)))]
async fn register(open: Open, headers: HeaderMap, Body(body): Body<RegisterBody>) -> Result<Response, ApiError> {
    refuse_foreign_form(&open, &headers)?;
    if !open.settings.registration {
        return Err(ApiError::forbidden("registration is off: ask an admin for an account"));
    }
    let taken = open.limits.login.take_address(open.address, open.clock.monotonic());
    taken.map_err(ApiError::too_many)?;
    let mut problems = Vec::new();
    let mut note = |field: &str, code: &str, expected: String| {
        problems.push(FieldProblem {
            field: field.to_owned(),
            code: code.to_owned(),
            message: format!("{field} {expected}"),
        });
    };
    let login = body.login.unwrap_or_default();
    let login = access::login_name(&login).map_err(|expected| note("login", "invalid", expected));
    let password = body.password.unwrap_or_default();
    if let Err(expected) = password::check_length(&password) {
        note("password", "invalid", expected);
    }
    let name = body.name.unwrap_or_default();
    if name.chars().count() > access::NAME_CHARS_MAX || name.chars().any(char::is_control) {
        note(
            "name",
            "invalid",
            format!("must have at most {} characters", access::NAME_CHARS_MAX),
        );
    }
    let (Ok(login), true) = (login, problems.is_empty()) else {
        return Err(ApiError::fields(problems));
    };
    let new = NewUser {
        login,
        name,
        role: Role::User,
        password: SecretString::from(password),
    };
    let now = open.clock.wall();
    let user = access::add_user(&*open.store, &open.passwords, &open.ids, &open.settings, new, now)
        .await
        .map_err(|error| {
            if error.is_conflict() {
                ApiError::conflict("login is taken")
            } else {
                error.into()
            }
        })?;
    let cookie = open_session(&open, user.id, now).await?;
    Ok(with_cookie(cookie, Reply::ok("registered", UserView::of(&user))))
}

/// Who is logged in.
#[utoipa::path(get, path = "/api/auth/user", tag = "access",
    responses((status = 200, description = "The user", body = Envelope<UserView>)))]
async fn current_user(caller: Caller) -> ApiResult<UserView> {
    Ok(Reply::ok("user", UserView::of(&caller.user)))
}

/// Who is logged in, under its older name.
#[utoipa::path(get, path = "/user/info", tag = "access",
    responses((status = 200, description = "The user", body = Envelope<UserView>)))]
async fn user_info(caller: Caller) -> ApiResult<UserView> {
    Ok(Reply::ok("user", UserView::of(&caller.user)))
}
