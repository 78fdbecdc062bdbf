//! What lies ahead of the devices that send a campaign or sequence.

use std::time::Duration;

use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::device::Device;
use crate::domain::pacing::{DelaySettings, PacingProfile, Priority};
use crate::domain::schedule::Quiet;
use crate::domain::summary::DeviceNumbers;
use crate::id::DeviceId;
use crate::plan::LaneWork;
use crate::store::Taken;

/// How a campaign or sequence is sent, but for what its devices say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Its own delays.
    pub(super) delay: DelaySettings,
    /// When it must not send.
    pub(super) quiet: Option<Quiet>,
    /// How urgent it is.
    pub(super) priority: Priority,
}

/// How many messages of a pool a device may still take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room<'a> {
    /// Most that it may take.
    pub(super) limit: u32,
    /// What devices have taken.
    pub(super) taken: &'a [Taken],
}

impl Room<'_> {
    fn of(&self, device: DeviceId) -> u64 {
        let taken = self.taken.iter().find(|one| one.device_id == device);
        u64::from(self.limit.saturating_sub(taken.map_or(0, |one| one.taken)))
    }
}

/// What lies ahead of its devices.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Of each device that can send: its work.
    pub(super) lanes: Vec<LaneWork>,
    /// Devices with messages that cannot send now.
    pub(super) waiting_devices: Vec<DeviceId>,
    /// Whether messages wait in the pool and no device is there to take them.
    pub(super) pool_waits: bool,
}

impl Handle {
    /// Shares out what remains: messages of a device to that, those of the pool evenly to all that can send, as far as they have
    /// room for them.
    pub(super) async fn ahead(
        &self,
        scope: &RequestScope,
        rows: &[DeviceNumbers],
        pace: &Pace,
        room: Option<Room<'_>>,
    ) -> Result<Ahead, HandleError> {
        let devices = self.devices_of(scope).await?;
        let able = devices.iter().filter(|device| device.may_send());
        let mut own: Vec<(&Device, u64)> = able.map(|device| (device, 0)).collect();
        let mut ahead = Ahead::default();
        for row in rows.iter().filter(|row| row.numbers.remaining > 0) {
            let left = row.numbers.remaining;
            match row.device_id {
                Some(id) => match own.iter_mut().find(|(device, _)| device.id == id) {
                    Some((_, messages)) => *messages += left,
                    None => ahead.waiting_devices.push(id),
                },
                None if own.is_empty() => ahead.pool_waits = true,
                None => {
                    let share = left.div_ceil(own.len() as u64);
                    for (device, messages) in &mut own {
                        *messages += room.map_or(share, |room| share.min(room.of(device.id)));
                    }
                }
            }
        }
        for (device, messages) in own.into_iter().filter(|(_, messages)| *messages > 0) {
            let all = self.core.store.device_numbers(scope, device.id).await?.remaining;
            // Campaigns of one device take turns: another one at work doubles the way at most.
            let others = all.saturating_sub(messages).min(messages);
            ahead.lanes.push(self.lane_work(device, messages + others, pace));
        }
        Ok(ahead)
    }

    fn lane_work(&self, device: &Device, messages: u64, pace: &Pace) -> LaneWork {
        let pacing = &self.core.config.pacing;
        let range = pacing.delay_range(DelaySettings {
            device: device.delay,
            ..pace.delay
        });
        let mean = (range.min() + range.max()) / 2;
        let mean_delay = match pacing.profile() {
            PacingProfile::Human => mean.max(pacing.floor()),
            PacingProfile::Demo => mean / 10,
            PacingProfile::Unpaced => Duration::ZERO,
        };
        LaneWork {
            messages,
            mean_delay,
            caps: pacing.caps(pace.priority, device.caps),
            quiet: pace.quiet,
        }
    }
}
