//! A single thread that polls tasks in an order drawn from a seed, and lets them crash and stall.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use rand::RngExt as _;

use super::clock::Timeline;
use crate::seed::ChaCha8Rng;

/// A task of a [`Scheduler`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskId(u64);

#[derive(Default)]
struct Ready(Mutex<BTreeSet<TaskId>>);

impl Ready {
    fn set(&self) -> MutexGuard<'_, BTreeSet<TaskId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TaskWaker {
    id: TaskId,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.set().insert(self.id);
    }
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    waker: Waker,
    stalled_until: Option<Duration>,
}

/// Polls tasks one at a time. The same seed gives the same order.
pub struct Scheduler {
    timeline: Arc<Timeline>,
    ready: Arc<Ready>,
    tasks: BTreeMap<TaskId, Task>,
    rng: ChaCha8Rng,
    next_id: u64,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheduler")
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

impl Scheduler {
    /// A scheduler without tasks, which draws its order from `rng`.
    #[must_use]
    pub fn new(timeline: Arc<Timeline>, rng: ChaCha8Rng) -> Self {
        Self {
            timeline,
            ready: Arc::default(),
            tasks: BTreeMap::new(),
            rng,
            next_id: 0,
        }
    }

    /// Adds a task; it is ready at once.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + Send + 'static) -> TaskId {
        let id = TaskId(self.next_id);
        self.next_id += 1;
        let waker = Waker::from(Arc::new(TaskWaker {
            id,
            ready: Arc::clone(&self.ready),
        }));
        let task = Task {
            future: Box::pin(future),
            waker,
            stalled_until: None,
        };
        self.tasks.insert(id, task);
        self.ready.set().insert(id);
        id
    }

    /// Drops a task where it stands, as a crash does.
    pub fn kill(&mut self, id: TaskId) {
        self.ready.set().remove(&id);
        drop(self.tasks.remove(&id));
    }

    /// Does not poll a task for a while, whatever wakes it.
    pub fn stall(&mut self, id: TaskId, span: Duration) {
        let until = self.timeline.now() + span;
        if let Some(task) = self.tasks.get_mut(&id) {
            task.stalled_until = Some(until);
        }
    }

    /// Whether a task has not ended yet.
    #[must_use]
    pub fn is_alive(&self, id: TaskId) -> bool {
        self.tasks.contains_key(&id)
    }

    /// Polls one of the tasks that are ready, or else lets time jump to the next timer; `false` when there is neither.
    pub fn step(&mut self) -> bool {
        let now = self.timeline.now();
        let open: Vec<TaskId> = {
            let mut ready = self.ready.set();
            ready.retain(|id| self.tasks.contains_key(id));
            let stalled = |id: &TaskId| self.tasks[id].stalled_until.is_some_and(|until| until > now);
            ready.iter().copied().filter(|id| !stalled(id)).collect()
        };
        if open.is_empty() {
            return self.jump(now);
        }
        let id = open[self.rng.random_range(0..open.len())];
        self.ready.set().remove(&id);
        let task = self.tasks.get_mut(&id).expect("only tasks that exist are ready");
        let mut context = Context::from_waker(&task.waker);
        if task.future.as_mut().poll(&mut context).is_ready() {
            self.tasks.remove(&id);
        }
        true
    }

    /// Jumps to the next timer, or to the end of a stall if that comes first.
    fn jump(&mut self, now: Duration) -> bool {
        let ready = self.ready.set().clone();
        let stalled = ready.iter().filter_map(|id| self.tasks[id].stalled_until);
        let Some(until) = stalled.filter(|until| *until > now).min() else {
            return self.timeline.advance();
        };
        if self.timeline.next_at().is_some_and(|at| at <= until) {
            return self.timeline.advance();
        }
        self.timeline.jump_to(until);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seed;

    fn order_of(seed: u64) -> Vec<u8> {
        let timeline = Timeline::new();
        let mut scheduler = Scheduler::new(Arc::clone(&timeline), Seed::from_number(seed).rng(b"", "test"));
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        for task in 0..4 {
            let (log, timeline) = (Arc::clone(&log), Arc::clone(&timeline));
            scheduler.spawn(async move {
                for _ in 0..3 {
                    log.lock().unwrap().push(task);
                    timeline.sleep(Duration::from_secs(1)).await;
                }
            });
        }
        while scheduler.step() {}
        std::mem::take(&mut *log.lock().unwrap())
    }

    #[test]
    fn the_order_follows_from_the_seed_and_nothing_else() {
        assert_eq!(order_of(1), order_of(1));
        assert!((2..20).any(|seed| order_of(seed) != order_of(1)));
        assert_eq!(order_of(1).len(), 12);
    }

    #[test]
    fn a_killed_task_is_dropped_and_a_stalled_one_goes_on_later() {
        let timeline = Timeline::new();
        let mut scheduler = Scheduler::new(Arc::clone(&timeline), Seed::from_number(1).rng(b"", "test"));
        let token = Arc::new(());
        let (killed, stalled) = (Arc::clone(&token), Arc::clone(&timeline));
        let first = scheduler.spawn(async move {
            let _held = killed;
            std::future::pending::<()>().await;
        });
        let second = scheduler.spawn(async move { stalled.sleep(Duration::from_secs(1)).await });
        scheduler.kill(first);
        assert_eq!(Arc::strong_count(&token), 1);
        scheduler.stall(second, Duration::from_secs(60));
        while scheduler.step() {}
        assert!(!scheduler.is_alive(second));
        assert_eq!(timeline.now(), Duration::from_secs(61), "it slept only after its stall");
    }
}
