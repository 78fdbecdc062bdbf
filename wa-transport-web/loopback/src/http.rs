//! HTTP for clients of the loopback: within the process, or through another client to the loopback's sockets.

use std::sync::Arc;

use async_trait::async_trait;
use whatsapp_rust::anyhow;
use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse};

use crate::server::Shared;

/// The media server within the process, without sockets: every host leads to it; cheap to clone.
#[derive(Clone)]
pub struct LoopbackHttp {
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl HttpClient for LoopbackHttp {
    async fn execute(&self, request: HttpRequest) -> Result<HttpResponse, anyhow::Error> {
        let (path, query) = path_and_query(&request.url);
        let answer = self.shared.with(|state| {
            if request.method.eq_ignore_ascii_case("POST") {
                let resume = query.split('&').any(|pair| pair == "resume=1");
                state.upload(path, resume, request.body.as_deref().unwrap_or_default().to_vec())
            } else {
                state.download(path)
            }
        });
        let (status_code, body) = answer.ok_or_else(|| anyhow::anyhow!("the connection broke"))?;
        Ok(HttpResponse { status_code, body })
    }
}

/// Sends every request to the media server at one address, whatever host it names: for clients that reach the loopback
/// by its sockets.
pub struct RewriteHost<C> {
    inner: C,
    base: String,
}

impl<C> RewriteHost<C> {
    /// Wraps a client; `media_url` is the one of a [`Listener`](crate::Listener).
    pub fn new(inner: C, media_url: impl Into<String>) -> Self {
        Self {
            inner,
            base: media_url.into(),
        }
    }
}

#[async_trait]
impl<C: HttpClient + Send + Sync> HttpClient for RewriteHost<C> {
    async fn execute(&self, mut request: HttpRequest) -> Result<HttpResponse, anyhow::Error> {
        let (path, query) = path_and_query(&request.url);
        request.url = if query.is_empty() {
            format!("{}{path}", self.base)
        } else {
            format!("{}{path}?{query}", self.base)
        };
        self.inner.execute(request).await
    }
}

/// The path, with its slash, and what is asked for, without its question mark.
fn path_and_query(url: &str) -> (&str, &str) {
    let after_scheme = url.split_once("://").map_or(url, |(_, rest)| rest);
    let from_path = after_scheme.find('/').map_or("/", |slash| &after_scheme[slash..]);
    from_path.split_once('?').unwrap_or((from_path, ""))
}

#[cfg(test)]
mod tests {
    use super::path_and_query;

    #[test]
    fn an_address_is_taken_apart_behind_its_host() {
        assert_eq!(
            path_and_query("https://host/mms/image/x?auth=1&token=2"),
            ("/mms/image/x", "auth=1&token=2")
        );
        assert_eq!(path_and_query("https://host"), ("/", ""));
        assert_eq!(path_and_query("/only/path"), ("/only/path", ""));
    }
}
