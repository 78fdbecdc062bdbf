//! The devices of a load as they are at any moment, here and at their gateways.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;
use rand::RngExt as _;
use serde::Serialize;
use wa_core::id::DeviceId;

use crate::demo::stage::StagedDevice;
use crate::loopback::{GatewayDevice, GatewayScript, RunningGateway, Vendor};

/// How often devices changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ChurnCounts {
    /// Devices that were added.
    pub added: u64,
    /// Devices that went offline and came back.
    pub offline: u64,
    /// Devices that were deleted.
    pub deleted: u64,
}

/// A device that messages may be given to.
#[derive(Debug, Clone)]
struct Live {
    id: DeviceId,
    vendor: Vendor,
    credential: String,
}

#[derive(Debug, Default)]
struct State {
    live: Vec<Live>,
    churn: ChurnCounts,
}

/// A gateway with all devices that it ever knew: one that is deleted here is still known there.
#[derive(Debug)]
pub(super) struct Side {
    gateway: Arc<RunningGateway>,
    script: Mutex<GatewayScript>,
}

impl Side {
    pub fn new(gateway: Arc<RunningGateway>, script: GatewayScript) -> Self {
        Self {
            gateway,
            script: Mutex::new(script),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<GatewayDevice>)) {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut script.devices);
        self.gateway.set_script(script.clone());
    }
}

/// The devices of a load.
#[derive(Debug)]
pub(super) struct Fleet {
    wablas: Side,
    whacenter: Side,
    state: Mutex<State>,
}

impl Fleet {
    /// The devices as they were made, known to their gateways.
    pub fn new(wablas: Side, whacenter: Side, devices: &[StagedDevice]) -> Self {
        let fleet = Self {
            wablas,
            whacenter,
            state: Mutex::default(),
        };
        for vendor in [Vendor::Wablas, Vendor::Whacenter] {
            let here = devices.iter().filter(|device| device.vendor == vendor);
            fleet
                .side(vendor)
                .change(|known| known.extend(here.map(|device| device.at_gateway(None))));
        }
        fleet.state().live = devices
            .iter()
            .map(|device| Live {
                id: device.id,
                vendor: device.vendor,
                credential: device.at_gateway(None).credential,
            })
            .collect();
        fleet
    }

    fn side(&self, vendor: Vendor) -> &Side {
        match vendor {
            Vendor::Wablas => &self.wablas,
            Vendor::Whacenter => &self.whacenter,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a vendor's gateway is.
    pub fn base_url(&self, vendor: Vendor) -> String {
        self.side(vendor).gateway.base_url()
    }

    pub fn churn(&self) -> ChurnCounts {
        self.state().churn
    }

    /// One of the devices that are there.
    pub fn pick(&self, rng: &mut impl Rng) -> Option<DeviceId> {
        let state = self.state();
        (!state.live.is_empty()).then(|| state.live[rng.random_range(0..state.live.len())].id)
    }

    /// One of them, which is to be deleted; never the last.
    pub fn take(&self, rng: &mut impl Rng) -> Option<DeviceId> {
        let mut state = self.state();
        let count = state.live.len();
        (count > 1).then(|| state.live.swap_remove(rng.random_range(0..count)).id)
    }

    pub fn deleted(&self) {
        self.state().churn.deleted += 1;
    }

    /// Connects a device at its gateway, or cuts it off there; nothing where it was deleted meanwhile.
    pub fn set_connected(&self, id: DeviceId, connected: bool) {
        let found = self.state().live.iter().find(|device| device.id == id).cloned();
        let Some(device) = found else { return };
        self.side(device.vendor).change(|known| {
            let known = known.iter_mut().filter(|known| known.credential == device.credential);
            known.for_each(|known| known.connected = connected);
        });
        self.state().churn.offline += u64::from(!connected);
    }

    /// Makes a device known to its gateway before it is added here.
    pub fn introduce(&self, vendor: Vendor, device: GatewayDevice) {
        self.side(vendor).change(|known| known.push(device));
    }

    pub fn added(&self, id: DeviceId, vendor: Vendor, device: GatewayDevice) {
        let mut state = self.state();
        state.churn.added += 1;
        state.live.push(Live {
            id,
            vendor,
            credential: device.credential,
        });
    }
}
