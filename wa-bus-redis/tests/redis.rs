//! The bus passes the suite of buses on a private Redis, and outlives it.

#![allow(clippy::unwrap_used, reason = "a step of a test that fails is a panic")]

#[path = "redis/server.rs"]
mod server;

use std::sync::Arc;

use async_trait::async_trait;
use wa_bus_redis::{BusError, RedisBus, RedisOptions};
use wa_core::conformance::bus::BusFixture;
use wa_core::conformance::fixtures::Fixtures;
use wa_core::event::{Event, EventBus, Heard};
use wa_core::time::SystemClock;

use self::server::RedisServer;

struct Redis {
    server: RedisServer,
    nodes: [RedisBus; 2],
}

fn bus(server: &RedisServer, channel: &str) -> RedisBus {
    let options = RedisOptions::url(server.url()).channel(channel);
    RedisBus::start(options, Arc::new(SystemClock::new())).unwrap()
}

#[async_trait]
impl BusFixture for Redis {
    async fn start() -> Self {
        let server = RedisServer::start();
        let nodes = [bus(&server, "test"), bus(&server, "test")];
        for node in &nodes {
            node.connected().await;
        }
        Self { server, nodes }
    }

    fn nodes(&self) -> [Arc<dyn EventBus>; 2] {
        [Arc::new(self.nodes[0].clone()), Arc::new(self.nodes[1].clone())]
    }
}

mod suite {
    wa_core::bus_conformance!(super::Redis);
}

fn event() -> Event {
    let rows = Fixtures::new(1);
    rows.event(rows.user().id, rows.start())
}

#[tokio::test]
async fn while_redis_is_away_a_node_hears_itself_and_afterwards_the_others_again() {
    let Redis { mut server, nodes } = Redis::start().await;
    let (mut here, mut there) = (nodes[0].listen(), nodes[1].listen());
    server.kill();
    let event = event();
    nodes[0].publish(std::slice::from_ref(&event)).await;
    assert_eq!(
        here.next().await,
        Some(Heard::Event(event.clone())),
        "its own are heard all the same"
    );
    server.restart();
    assert_eq!(
        there.next().await,
        Some(Heard::Missed),
        "the other is told that it may have missed some"
    );
    assert!(nodes[1].is_connected());
    // What waited comes now, in its order.
    let mut last = event.clone();
    last.at = event.at + std::time::Duration::from_secs(1);
    nodes[0].publish(std::slice::from_ref(&last)).await;
    while there.next().await != Some(Heard::Event(last.clone())) {}
}

#[tokio::test]
async fn a_node_that_starts_before_redis_is_told_that_it_may_have_missed_some() {
    let mut server = RedisServer::start();
    server.kill();
    let node = bus(&server, "test");
    let mut listener = node.listen();
    // The first attempts of both, of who publishes and of who listens.
    server.refuse(2).await;
    server.restart();
    let heard = tokio::time::timeout(std::time::Duration::from_secs(20), listener.next()).await;
    assert_eq!(heard.expect("it hears of it"), Some(Heard::Missed));
}

#[tokio::test]
async fn channels_of_one_redis_do_not_hear_each_other() {
    let server = RedisServer::start();
    let nodes = [bus(&server, "one"), bus(&server, "two"), bus(&server, "two")];
    for node in &nodes {
        node.connected().await;
    }
    let mut listener = nodes[2].listen();
    let (mut first, second) = (event(), event());
    first.at = first.at + std::time::Duration::from_secs(5);
    nodes[0].publish(&[first]).await;
    nodes[1].publish(std::slice::from_ref(&second)).await;
    assert_eq!(listener.next().await, Some(Heard::Event(second)));
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let options = RedisOptions::url("redis://:hunter2@127.0.0.1:1/");
    assert!(!format!("{options:?}").contains("hunter2"));
    let bus = RedisBus::start(options, Arc::new(SystemClock::new())).unwrap();
    assert!(!format!("{bus:?}").contains("hunter2"));
    let refused = RedisBus::start(RedisOptions::url("http://:hunter2@x"), Arc::new(SystemClock::new()));
    assert_eq!(refused.unwrap_err(), BusError::Address);
}
