//! The version of WhatsApp Web as which devices connect: set, or asked for once for all of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use wa_core::time::{Clock, Timestamp};
use whatsapp_rust::http::HttpClient;

/// A version of WhatsApp Web, such as 2.3000.1020000000.
pub type WebVersion = (u32, u32, u32);

/// How long a version that was asked for is used.
const USED_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// Knows the version for all devices.
pub(crate) struct Versions {
    fixed: Option<WebVersion>,
    http: Arc<dyn HttpClient>,
    clock: Arc<dyn Clock>,
    known: Mutex<Option<(WebVersion, Timestamp)>>,
}

impl Versions {
    pub(crate) fn new(fixed: Option<WebVersion>, http: Arc<dyn HttpClient>, clock: Arc<dyn Clock>) -> Self {
        Self {
            fixed,
            http,
            clock,
            known: Mutex::new(None),
        }
    }

    /// The version; devices that ask at once wait for one answer.
    pub(crate) async fn current(&self) -> Result<WebVersion, &'static str> {
        if let Some(fixed) = self.fixed {
            return Ok(fixed);
        }
        let mut known = self.known.lock().await;
        let now = self.clock.wall();
        if let Some((version, at)) = *known
            && now.since(at) < USED_FOR
        {
            return Ok(version);
        }
        match whatsapp_rust::version::fetch_latest_app_version(&self.http).await {
            Ok(version) => {
                *known = Some((version, now));
                Ok(version)
            }
            // An old version is better than none: WhatsApp takes versions of some weeks ago.
            Err(_) => known
                .map(|(version, _)| version)
                .ok_or("the version of WhatsApp Web could not be asked for"),
        }
    }

    /// Asks again at the next connection: WhatsApp called the version too old.
    pub(crate) async fn forget(&self) {
        *self.known.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use wa_core::time::SystemClock;
    use whatsapp_rust::anyhow;
    use whatsapp_rust::http::{HttpRequest, HttpResponse};

    use super::*;

    struct Page(AtomicUsize, u16);

    #[async_trait]
    impl HttpClient for Page {
        async fn execute(&self, _request: HttpRequest) -> anyhow::Result<HttpResponse> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(HttpResponse {
                status_code: self.1,
                body: br#"x({"dynamic_data":{"SiteData":{"server_revision":1,"client_revision":1020304050}}})"#
                    .to_vec(),
            })
        }
    }

    #[tokio::test]
    async fn many_devices_ask_once_and_a_set_version_is_never_asked_for() {
        let page = Arc::new(Page(AtomicUsize::new(0), 200));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let versions = Versions::new(None, page.clone(), clock.clone());
        let asked = futures::future::join_all((0..50).map(|_| versions.current())).await;
        assert!(
            asked.iter().all(|version| *version == Ok((2, 3000, 1_020_304_050))),
            "{asked:?}"
        );
        assert_eq!(page.0.load(Ordering::Relaxed), 1);
        versions.forget().await;
        versions.current().await.unwrap();
        assert_eq!(page.0.load(Ordering::Relaxed), 2);
        let fixed = Versions::new(Some((2, 3000, 7)), page.clone(), clock.clone());
        assert_eq!(fixed.current().await, Ok((2, 3000, 7)));
        let broken = Versions::new(None, Arc::new(Page(AtomicUsize::new(0), 500)), clock);
        broken.current().await.unwrap_err();
        assert_eq!(page.0.load(Ordering::Relaxed), 2);
    }
}
