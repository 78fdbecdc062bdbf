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

/// How long nobody asks again, however many devices want to know, when there was no answer or WhatsApp called the version too old.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// What was asked for last.
#[derive(Default)]
struct Asked {
    version: Option<WebVersion>,
    at: Option<Timestamp>,
    /// Whether the last question was answered and nobody has called the answer too old.
    holds: bool,
}

/// Knows the version for all devices.
pub(crate) struct Versions {
    fixed: Option<WebVersion>,
    http: Arc<dyn HttpClient>,
    clock: Arc<dyn Clock>,
    asked: Mutex<Asked>,
}

impl Versions {
    pub(crate) fn new(fixed: Option<WebVersion>, http: Arc<dyn HttpClient>, clock: Arc<dyn Clock>) -> Self {
        Self {
            fixed,
            http,
            clock,
            asked: Mutex::default(),
        }
    }

    /// The version; devices that ask at once wait for one answer.
    pub(crate) async fn current(&self) -> Result<WebVersion, &'static str> {
        if let Some(fixed) = self.fixed {
            return Ok(fixed);
        }
        let mut asked = self.asked.lock().await;
        let now = self.clock.wall();
        let good_for = if asked.holds { USED_FOR } else { ASK_AGAIN };
        if asked.at.is_none_or(|at| now.since(at) >= good_for) {
            let told = whatsapp_rust::version::fetch_latest_app_version(&self.http).await;
            (asked.at, asked.holds) = (Some(now), told.is_ok());
            // An old version is better than none: WhatsApp takes versions of some weeks ago.
            asked.version = told.ok().or(asked.version);
        }
        asked
            .version
            .ok_or("the version of WhatsApp Web could not be asked for")
    }

    /// Asks again before a later connection: WhatsApp called the version too old.
    pub(crate) async fn forget(&self) {
        self.asked.lock().await.holds = false;
    }
}

#[cfg(test)]
#[path = "../tests/web/clock.rs"]
mod clock;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use whatsapp_rust::anyhow;
    use whatsapp_rust::http::{HttpRequest, HttpResponse};

    use super::clock::MovedClock;
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
        let clock = Arc::new(MovedClock::default());
        let versions = Versions::new(None, page.clone(), clock.clone());
        let asked = futures::future::join_all((0..50).map(|_| versions.current())).await;
        assert!(
            asked.iter().all(|version| *version == Ok((2, 3000, 1_020_304_050))),
            "{asked:?}"
        );
        assert_eq!(page.0.load(Ordering::Relaxed), 1);
        clock.advance(USED_FOR - Duration::from_secs(1));
        versions.current().await.unwrap();
        assert_eq!(page.0.load(Ordering::Relaxed), 1);
        clock.advance(Duration::from_secs(1));
        versions.current().await.unwrap();
        assert_eq!(page.0.load(Ordering::Relaxed), 2);
        let fixed = Versions::new(Some((2, 3000, 7)), page.clone(), clock.clone());
        assert_eq!(fixed.current().await, Ok((2, 3000, 7)));
        assert_eq!(page.0.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn many_devices_whose_version_is_too_old_or_cannot_be_had_ask_once_in_a_while() {
        let page = Arc::new(Page(AtomicUsize::new(0), 500));
        let clock = Arc::new(MovedClock::default());
        let versions = Versions::new(None, page.clone(), clock.clone());
        for asked in 1..=2 {
            for refused in futures::future::join_all((0..50).map(|_| versions.current())).await {
                refused.unwrap_err();
            }
            assert_eq!(page.0.load(Ordering::Relaxed), asked);
            clock.advance(ASK_AGAIN);
        }
        let page = Arc::new(Page(AtomicUsize::new(0), 200));
        let versions = Versions::new(None, page.clone(), clock.clone());
        versions.current().await.unwrap();
        clock.advance(ASK_AGAIN);
        for asked in 2..=3 {
            for _ in 0..50 {
                versions.forget().await;
                versions.current().await.unwrap();
            }
            assert_eq!(page.0.load(Ordering::Relaxed), asked);
            clock.advance(ASK_AGAIN);
        }
    }
}
