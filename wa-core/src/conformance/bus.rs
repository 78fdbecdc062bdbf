//! The suite that every bus must pass.
//!
//! An author implements [`BusFixture`]; [`bus_conformance!`](crate::bus_conformance) turns the cases into named tests.

use std::sync::Arc;

use async_trait::async_trait;

use super::fixtures::Fixtures;
use super::transport::run;
use crate::event::{Event, EventBus, Heard, Listener, LocalBus};

/// Buses of two nodes that hear each other.
#[async_trait]
pub trait BusFixture: Sized + Send + Sync + 'static {
    /// Fresh ones, on which nobody listens and which are connected.
    async fn start() -> Self;

    /// The bus of one node, and that of the other; one and the same where a bus has one process only.
    fn nodes(&self) -> [Arc<dyn EventBus>; 2];
}

fn events(count: i64) -> Vec<Event> {
    let rows = Fixtures::new(1);
    let user = rows.user().id;
    (0..count)
        .map(|n| rows.event(user, rows.start() + std::time::Duration::from_secs(n.unsigned_abs())))
        .collect()
}

async fn hears(listener: &mut Listener, events: &[Event]) {
    for event in events {
        assert_eq!(listener.next().await, Some(Heard::Event(event.clone())));
    }
}

async fn who_listens_hears_what_any_node_publishes_in_order(nodes: [Arc<dyn EventBus>; 2]) {
    let events = events(20);
    let mut listeners = [nodes[0].listen(), nodes[1].listen(), nodes[1].listen()];
    for pair in events.chunks(2) {
        nodes[0].publish(pair).await;
    }
    for listener in &mut listeners {
        hears(listener, &events).await;
    }
}

async fn an_event_is_heard_once_where_it_was_published_too(nodes: [Arc<dyn EventBus>; 2]) {
    let events = events(3);
    let (mut here, mut there) = (nodes[0].listen(), nodes[1].listen());
    nodes[0].publish(&events[..1]).await;
    hears(&mut there, &events[..1]).await;
    // Whatever comes back of the first comes before the second.
    nodes[1].publish(&events[1..2]).await;
    hears(&mut here, &events[..2]).await;
    nodes[0].publish(&events[2..]).await;
    hears(&mut there, &events[1..]).await;
    hears(&mut here, &events[2..]).await;
}

async fn what_was_published_before_is_not_heard(nodes: [Arc<dyn EventBus>; 2]) {
    let events = events(2);
    let node = &nodes[0];
    node.publish(&events[..1]).await;
    let mut late = node.listen();
    node.publish(&events[1..]).await;
    hears(&mut late, &events[1..]).await;
}

async fn who_is_too_slow_is_told_that_something_was_missed_and_hears_the_newest(nodes: [Arc<dyn EventBus>; 2]) {
    let most = i64::try_from(LocalBus::WAITING_MAX).expect("a small number");
    let events = events(most + 10);
    let mut slow = nodes[0].listen();
    for page in events.chunks(500) {
        nodes[0].publish(page).await;
    }
    assert_eq!(slow.next().await, Some(Heard::Missed));
    hears(&mut slow, &events[10..]).await;
    assert_eq!(slow.try_next(), None);
}

async fn publishing_needs_nobody_who_listens(nodes: [Arc<dyn EventBus>; 2]) {
    let events = events(1_000);
    for _ in 0..20 {
        nodes[0].publish(&events).await;
    }
    nodes[0].publish(&[]).await;
}

macro_rules! case_table {
    ($d:tt $($name:ident,)+) => {
        /// Runs one case by its name.
        ///
        /// # Panics
        /// When the case fails, or there is none of that name.
        pub fn case<F: BusFixture>(name: &str) {
            run(async {
                let fixture = F::start().await;
                match name {
                    $(stringify!($name) => $name(fixture.nodes()).await,)+
                    other => panic!("there is no case {other}"),
                }
            });
        }

        /// Makes a named test of each case of the suite of buses, for one
        /// [`BusFixture`](crate::conformance::bus::BusFixture).
        #[macro_export]
        macro_rules! bus_conformance {
            ($d fixture:ty) => {
                $(
                    #[test]
                    fn $name() {
                        $d crate::conformance::bus::case::<$d fixture>(stringify!($name));
                    }
                )+
            };
        }

        #[cfg(test)]
        const CASES: &[&str] = &[$(stringify!($name)),+];
    };
}

case_table! { $
    who_listens_hears_what_any_node_publishes_in_order,
    an_event_is_heard_once_where_it_was_published_too,
    what_was_published_before_is_not_heard,
    who_is_too_slow_is_told_that_something_was_missed_and_hears_the_newest,
    publishing_needs_nobody_who_listens,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong with a bus.
    #[derive(Debug, Clone, Copy)]
    enum Flaw {
        TellsTwice,
        TurnsRound,
        TellsThePast,
        HearsNoOthers,
        LosesInSilence,
    }

    #[derive(Debug, Clone)]
    struct Broken {
        flaw: Flaw,
        bus: LocalBus,
        past: Arc<std::sync::Mutex<Vec<Event>>>,
    }

    #[async_trait]
    impl EventBus for Broken {
        async fn publish(&self, events: &[Event]) {
            self.past.lock().unwrap().extend(events.iter().take(5).cloned());
            match self.flaw {
                Flaw::TellsTwice => {
                    self.bus.tell(events);
                    self.bus.tell(events);
                }
                Flaw::TurnsRound => {
                    let turned: Vec<_> = events.iter().rev().cloned().collect();
                    self.bus.tell(&turned);
                }
                Flaw::LosesInSilence if events.len() > 100 => self.bus.tell(&events[100..]),
                _ => self.bus.tell(events),
            }
        }

        fn listen(&self) -> Listener {
            let bus = LocalBus::new();
            match self.flaw {
                Flaw::TellsThePast => {
                    let listener = bus.listen();
                    bus.tell(&self.past.lock().unwrap());
                    listener
                }
                _ => self.bus.listen(),
            }
        }
    }

    fn broken(flaw: Flaw) -> [Arc<dyn EventBus>; 2] {
        let one = Broken {
            flaw,
            bus: LocalBus::new(),
            past: Arc::default(),
        };
        let mut two = one.clone();
        if matches!(flaw, Flaw::HearsNoOthers) {
            two.bus = LocalBus::new();
        }
        [Arc::new(one), Arc::new(two)]
    }

    macro_rules! flaws {
        ($($flaw:ident $name:ident),+) => {
            $(
                struct $name;

                #[async_trait]
                impl BusFixture for $name {
                    async fn start() -> Self {
                        Self
                    }

                    fn nodes(&self) -> [Arc<dyn EventBus>; 2] {
                        broken(Flaw::$flaw)
                    }
                }
            )+

            /// Each flaw with what runs one case on a bus that has it.
            const FLAWED: &[(Flaw, fn(&str))] = &[$((Flaw::$flaw, case::<$name>)),+];
        };
    }

    flaws! {
        TellsTwice Twice,
        TurnsRound Turned,
        TellsThePast Past,
        HearsNoOthers Deaf,
        LosesInSilence Silent
    }

    #[test]
    fn every_broken_bus_fails_a_case() {
        for (flaw, run_case) in FLAWED {
            let fails = |name: &'static str| {
                let run_case = *run_case;
                let (ended, wait) = std::sync::mpsc::channel();
                std::thread::spawn(move || {
                    let passed = std::panic::catch_unwind(|| run_case(name)).is_ok();
                    let _ = ended.send(passed);
                });
                // A bus that tells nothing lets a case wait for ever.
                !wait.recv_timeout(std::time::Duration::from_secs(2)).unwrap_or(false)
            };
            assert!(CASES.iter().any(|name| fails(name)), "{flaw:?} is not noticed");
        }
    }
}
