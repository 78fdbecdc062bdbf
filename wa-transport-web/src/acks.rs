//! Which messages wait for the server's answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use wa_core::time::Timestamp;

/// What the server said of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It took it.
    Taken(Option<Timestamp>),
    /// It refused it, with this code.
    Refused(String),
}

/// The messages of one connection that wait for an answer, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Acks(Mutex<HashMap<String, oneshot::Sender<Answer>>>);

impl Acks {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Answer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the answer to a message from now on; who waited for the same before waits no more.
    pub(crate) fn wait_for(self: &Arc<Self>, id: &str) -> Waiting {
        let (tell, answer) = oneshot::channel();
        self.lock().insert(id.to_owned(), tell);
        Waiting {
            acks: Arc::clone(self),
            id: id.to_owned(),
            answer,
        }
    }

    /// Passes an answer on; one that nobody waits for is dropped.
    pub(crate) fn tell(&self, id: &str, answer: Answer) {
        if let Some(waiting) = self.lock().remove(id) {
            let _ = waiting.send(answer);
        }
    }

    /// The connection ended: no more answers come on it.
    pub(crate) fn connection_lost(&self) {
        self.lock().clear();
    }
}

/// One message that waits.
pub(crate) struct Waiting {
    acks: Arc<Acks>,
    id: String,
    answer: oneshot::Receiver<Answer>,
}

impl Waiting {
    /// The answer; `None` when the connection ended first.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        (&mut self.answer).await.ok()
    }

    /// The answer, if it has come.
    pub(crate) fn came(&mut self) -> Option<Answer> {
        self.answer.try_recv().ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.acks.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_finds_who_waits_also_when_it_comes_first() {
        let acks = Arc::new(Acks::default());
        let mut one = acks.wait_for("one");
        let mut other = acks.wait_for("other");
        acks.tell("one", Answer::Taken(None));
        acks.tell("nobody", Answer::Taken(None));
        assert_eq!(one.answer().await, Some(Answer::Taken(None)));
        assert_eq!(other.came(), None);
        acks.connection_lost();
        assert_eq!(other.answer().await, None);
        drop((one, other));
        assert!(acks.lock().is_empty());
    }
}
