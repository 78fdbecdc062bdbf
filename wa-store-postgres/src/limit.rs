//! The limit on this side: how long the database may keep silent.
//!
//! Statements have their limits on the server. A server that is gone, with its machine or behind a firewall that drops what it is
//! sent, keeps none of them, and what waits for it would wait until the operating system gives the connection up: a quarter of an
//! hour, or for ever.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures::task::AtomicWaker;

use crate::error::{Done, Fail};

/// Whether anything was heard since work was polled last, which is what wakes it.
struct Heard {
    heard: AtomicBool,
    waiting: AtomicWaker,
}

impl Wake for Heard {
    fn wake(self: Arc<Self>) {
        self.heard.store(true, Ordering::Release);
        self.waiting.wake();
    }
}

/// Does work that waits for nothing but the database, and gives it up when nothing is heard for as long as the limit: work of many
/// statements has the limit for each of them. Whoever polls more often than that prolongs nothing.
///
/// To ensure correctness: the connection is not used again after [`Fail::Silent`], because an answer may still be on its way.
pub(crate) async fn within<T, E>(limit: Option<Duration>, work: impl Future<Output = Result<T, E>>) -> Done<T>
where
    Fail: From<E>,
{
    let Some(limit) = limit else { return Ok(work.await?) };
    let mut work = std::pin::pin!(work);
    let heard = Arc::new(Heard {
        heard: AtomicBool::new(true),
        waiting: AtomicWaker::new(),
    });
    let waker = Waker::from(heard.clone());
    let mut silence = std::pin::pin!(tokio::time::sleep(limit));
    std::future::poll_fn(|context| {
        heard.waiting.register(context.waker());
        if heard.heard.swap(false, Ordering::AcqRel) {
            if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(done.map_err(Fail::from));
            }
            let now = tokio::time::Instant::now();
            silence.as_mut().reset(now + limit);
        }
        silence.as_mut().poll(context).map(|()| Err(Fail::Silent))
    })
    .await
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[tokio::test]
    async fn work_that_hears_nothing_is_given_up_however_often_it_is_polled() {
        let limit = Some(Duration::from_millis(100));
        let mut work = std::pin::pin!(within(limit, std::future::pending::<Done<()>>()));
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let polled = async {
            loop {
                tokio::select! {
                    done = &mut work => break done,
                    _ = tick.tick() => {}
                }
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(10), polled).await;
        assert!(matches!(done, Ok(Err(Fail::Silent))));
    }

    #[tokio::test]
    async fn work_that_hears_something_has_the_limit_again() {
        let limit = Some(Duration::from_secs(2));
        let (tell, mut told) = unbounded_channel::<()>();
        let work = async {
            let mut heard = 0;
            while told.recv().await.is_some() {
                heard += 1;
            }
            Done::Ok(heard)
        };
        let telling = async {
            let mut tick = tokio::time::interval(Duration::from_millis(500));
            for _ in 0..6 {
                tick.tick().await;
                tell.send(()).unwrap();
            }
            drop(tell);
        };
        let (done, ()) = futures::join!(within(limit, work), telling);
        assert_eq!(done.unwrap(), 6);
    }
}
