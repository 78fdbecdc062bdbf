//! What handlers may ask for. A handler reaches the store and the engine only through [`Caller`], which knows who asks, or
//! through [`Open`], whose use is a decision that a test lists.

use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body as HttpBody, Bytes};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, FromRequestParts, Multipart, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use futures::StreamExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use wa_core::domain::access::{RequestScope, Role, User};
use wa_core::store::{PAGE_MAX, PageRequest};

use super::auth;
use super::error::ApiError;
use super::pictures::FreshPictures;
use crate::app::App;

/// Largest JSON body, in bytes: 1 MB.
pub const JSON_BYTES_MAX: u64 = 1_000_000;
/// How much of a body that is too large is read and thrown away, so that its sender gets to read the answer.
pub const DRAIN_BYTES_MAX: u64 = 64_000_000;
/// How long the next part of a body may take to arrive.
pub const BODY_PART_TIMEOUT: Duration = Duration::from_secs(30);

/// The state of the router: what is inside is out of reach of handlers.
#[derive(Clone)]
pub struct Locked(Arc<App>);

impl Locked {
    pub(crate) const fn new(app: Arc<App>) -> Self {
        Self(app)
    }

    /// For the layers around all routes.
    pub(super) fn app(&self) -> &Arc<App> {
        &self.0
    }
}

/// Somebody who is logged in; the only way to reach what belongs to users.
pub struct Caller {
    app: Arc<App>,
    /// Who asks.
    pub user: User,
    /// Whose data they may see.
    pub scope: RequestScope,
    /// The login, when it was made with a cookie.
    pub(super) session: Option<[u8; 32]>,
    /// The pictures that are kept for this request.
    pub(super) fresh: FreshPictures,
}

impl Deref for Caller {
    type Target = App;
    fn deref(&self) -> &App {
        &self.app
    }
}

impl Caller {
    /// The shared parts, for tasks that outlive the request.
    #[must_use]
    pub fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }
}

impl FromRequestParts<Locked> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &Locked) -> Result<Self, ApiError> {
        let app = Arc::clone(&state.0);
        let address = caller_address(parts, app.settings.trust_proxy);
        let (user, session) = auth::authenticate(&app, parts, address).await?;
        Ok(Self {
            scope: RequestScope::user(user.id),
            app,
            user,
            session,
            fresh: parts.extensions.get().cloned().unwrap_or_default(),
        })
    }
}

/// An admin who is logged in.
pub struct Admin(pub Caller);

impl FromRequestParts<Locked> for Admin {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &Locked) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        match caller.user.role {
            Role::Admin => Ok(Self(caller)),
            Role::User => Err(ApiError::forbidden("only an admin may do this")),
        }
    }
}

/// Anybody: only for the routes that are public by intention.
pub struct Open {
    app: Arc<App>,
    /// Where the request came from.
    pub address: IpAddr,
}

impl Deref for Open {
    type Target = Arc<App>;
    fn deref(&self) -> &Arc<App> {
        &self.app
    }
}

impl FromRequestParts<Locked> for Open {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &Locked) -> Result<Self, ApiError> {
        let app = Arc::clone(&state.0);
        let address = caller_address(parts, app.settings.trust_proxy);
        Ok(Self { app, address })
    }
}

/// Where a request came from; IPv6 addresses by their network of 64 bits, which one caller owns as a whole.
pub(super) fn caller_address(parts: &Parts, trust_proxy: bool) -> IpAddr {
    let forwarded = parts
        .headers
        .get_all("x-forwarded-for")
        .iter()
        .next_back()
        .filter(|_| trust_proxy)
        .and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    let peer = parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip());
    match forwarded.unwrap_or(peer).to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            let network = address.to_bits() >> 64 << 64;
            IpAddr::V6(network.into())
        }
        address => address,
    }
}

/// A JSON body of at most [`JSON_BYTES_MAX`]; a body that cannot be read names the field.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;
    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = read_body(request.into_body(), JSON_BYTES_MAX).await?;
        parse_json(&bytes).map(Self)
    }
}

/// Parses JSON; an error names the field.
///
/// # Errors
/// `BAD_REQUEST`
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::unreadable("the body must be JSON, and it is empty"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data if path != "." => {
                ApiError::unreadable_field(path.clone(), format!("{path}: {inner}"))
            }
            serde_json::error::Category::Data => ApiError::unreadable(format!("the body has another form: {inner}")),
            _ => ApiError::unreadable(format!("the body must be JSON: {inner}")),
        }
    })?;
    json.end()
        .map_err(|error| ApiError::unreadable(format!("the body must be JSON: {error}")))?;
    Ok(value)
}

/// Reads a body of at most `bytes_max`.
///
/// # Errors
/// 413 when it is larger, 400 when it does not arrive.
pub async fn read_body(body: HttpBody, bytes_max: u64) -> Result<Bytes, ApiError> {
    let mut parts = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(part) = next_part(&mut parts).await? {
        if (whole.len() + part.len()) as u64 > bytes_max {
            drain(&mut parts).await;
            return Err(ApiError::too_large(bytes_max));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.into())
}

/// The next part of a body.
///
/// # Errors
/// 400 when it does not arrive in time.
pub async fn next_part<E>(
    parts: &mut (impl futures::Stream<Item = Result<Bytes, E>> + Unpin),
) -> Result<Option<Bytes>, ApiError> {
    match tokio::time::timeout(BODY_PART_TIMEOUT, parts.next()).await {
        Ok(Some(Ok(part))) => Ok(Some(part)),
        Ok(None) => Ok(None),
        Ok(Some(Err(_))) | Err(_) => Err(ApiError::unreadable("the body did not arrive whole")),
    }
}

/// Reads on and throws away: a connection that is closed while the other side still writes loses the answer.
pub async fn drain<E>(parts: &mut (impl futures::Stream<Item = Result<Bytes, E>> + Unpin)) {
    let mut left = DRAIN_BYTES_MAX;
    while let Ok(Some(part)) = next_part(parts).await {
        match left.checked_sub(part.len() as u64) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A form that is read part by part. Axum's own limit of 2 MB for the whole does not hold: each part has its own.
pub struct FormParts {
    parts: Multipart,
    bytes_max: u64,
}

impl FormParts {
    /// The form of a request whose parts have at most `parts_bytes_max` in all; so much more as [`DRAIN_BYTES_MAX`] is read, so that
    /// one part that is too large gets its answer.
    ///
    /// # Errors
    /// 400 when it is no form.
    pub async fn of(mut request: Request, parts_bytes_max: u64) -> Result<Self, ApiError> {
        let bytes_max = parts_bytes_max.saturating_add(DRAIN_BYTES_MAX);
        DefaultBodyLimit::max(usize::try_from(bytes_max).unwrap_or(usize::MAX)).apply(&mut request);
        let parts = Multipart::from_request(request, &()).await;
        Ok(Self {
            parts: parts.map_err(|_| unreadable_form())?,
            bytes_max,
        })
    }

    /// The next part.
    ///
    /// # Errors
    /// 413 when the form as a whole is too large, 400 when it cannot be read or does not arrive in time.
    pub async fn next(&mut self) -> Result<Option<Field<'_>>, ApiError> {
        let too_large = |error: &MultipartError| error.status() == StatusCode::PAYLOAD_TOO_LARGE;
        match tokio::time::timeout(BODY_PART_TIMEOUT, self.parts.next_field()).await {
            Ok(Ok(part)) => Ok(part),
            Ok(Err(error)) if too_large(&error) => Err(ApiError::too_large(self.bytes_max)),
            Ok(Err(_)) | Err(_) => Err(unreadable_form()),
        }
    }

    /// Reads on to the end and throws away, as [`drain`] does with one part.
    pub async fn drain(mut self) {
        while let Ok(Some(mut part)) = self.next().await {
            drain(&mut part).await;
        }
    }
}

fn unreadable_form() -> ApiError {
    ApiError::unreadable("the form cannot be read")
}

/// The query string; one that cannot be read names the field.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        // A filter that is left empty, as forms do, is no filter.
        let given: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let plain = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(given)
            .finish();
        let read = serde_urlencoded::Deserializer::new(url::form_urlencoded::parse(plain.as_bytes()));
        serde_path_to_error::deserialize(read).map(Self).map_err(|error| {
            let path = error.path().to_string();
            let message = format!("{path}: {}", error.into_inner());
            ApiError::unreadable_field(path, message)
        })
    }
}

/// The ids in the path; what is no id names nothing that exists.
#[derive(Debug)]
pub struct Ids<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Ids<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(ids)) => Ok(Self(ids)),
            Err(_) => Err(ApiError::not_found("there is nothing of this id")),
        }
    }
}

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The `next` of the page before; none for the first page.
    pub cursor: Option<String>,
    /// Most rows wanted, 1 to 1,000; 50 when it is not given.
    pub limit: Option<u32>,
}

impl PageQuery {
    /// Rows of a page when nobody says how many.
    pub const LIMIT: u32 = 50;

    /// The limit.
    ///
    /// # Errors
    /// It is out of range.
    pub fn limit(&self) -> Result<u32, ApiError> {
        match self.limit.unwrap_or(Self::LIMIT) {
            limit @ 1..=PAGE_MAX => Ok(limit),
            _ => Err(ApiError::field(
                "limit",
                "out_of_range",
                format_args!("must be 1 to {PAGE_MAX}"),
            )),
        }
    }

    /// The page for a store.
    ///
    /// # Errors
    /// The cursor is none, or the limit is out of range.
    pub fn request<K: std::str::FromStr>(&self) -> Result<PageRequest<K>, ApiError> {
        let after = self
            .cursor
            .as_deref()
            .map(|text| {
                text.parse()
                    .map_err(|_| ApiError::field("cursor", "invalid", "must be the `next` of an earlier page"))
            })
            .transpose()?;
        Ok(PageRequest {
            after,
            limit: self.limit()?,
        })
    }
}

/// A header as text, if it is there and readable.
pub(super) fn header_text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
