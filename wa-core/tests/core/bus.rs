//! The bus within one process passes the suite of buses.

use std::sync::Arc;

use async_trait::async_trait;
use wa_core::conformance::bus::BusFixture;
use wa_core::event::{EventBus, LocalBus};

struct Local(LocalBus);

#[async_trait]
impl BusFixture for Local {
    async fn start() -> Self {
        Self(LocalBus::new())
    }

    fn nodes(&self) -> [Arc<dyn EventBus>; 2] {
        [Arc::new(self.0.clone()), Arc::new(self.0.clone())]
    }
}

wa_core::bus_conformance!(Local);
