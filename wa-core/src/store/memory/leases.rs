//! Nodes, leases and epochs.

use async_trait::async_trait;

use super::MemoryStore;
use super::flaw::Flaw;
use super::state::{DeviceRow, Mark, NodeRow, State, conflict, not_found};
use crate::domain::device::{Epoch, OwnedDevice};
use crate::id::{DeviceId, Incarnation};
use crate::seed::Seed;
use crate::store::{LeaseStore, NodeRecord, StoreError, StoreErrorKind, TakenOver};
use crate::time::Timestamp;

fn fenced(operation: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Fenced, operation, "node")
}

impl State {
    /// Whether a node may write as an owner: one that is fenced, has left or never joined may not.
    pub(super) fn check_node(&self, incarnation: Incarnation, operation: &'static str) -> Result<(), StoreError> {
        match self.nodes.get(&incarnation) {
            Some(node) if !node.fenced || self.flawed(Flaw::FencedNodeGoesOn) => Ok(()),
            _ => Err(fenced(operation)),
        }
    }

    fn join(&mut self, incarnation: Incarnation, name: &str, now: Timestamp) -> Result<(), StoreError> {
        if self.nodes.contains_key(&incarnation) {
            return Err(conflict("join", "node"));
        }
        let node = NodeRow {
            name: name.to_owned(),
            beat: 0,
            beat_at: now,
            fenced: false,
        };
        self.nodes.insert(incarnation, node);
        Ok(())
    }

    fn beat(&mut self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
        let node = self.nodes.get_mut(&incarnation).ok_or(not_found("beat", "node"))?;
        if node.fenced {
            return Err(fenced("beat"));
        }
        node.beat += 1;
        node.beat_at = now;
        Ok(())
    }

    fn nodes(&self) -> Vec<NodeRecord> {
        let record = |(incarnation, node): (&Incarnation, &NodeRow)| NodeRecord {
            incarnation: *incarnation,
            name: node.name.clone(),
            beat: node.beat,
            beat_at: node.beat_at,
            fenced: node.fenced,
            device_count: self.owned_by(*incarnation).count() as u64,
            planner: self.planner == Some(*incarnation),
        };
        self.nodes.iter().map(record).collect()
    }

    fn owned_by(&self, incarnation: Incarnation) -> impl Iterator<Item = DeviceId> {
        self.owned_by
            .range((incarnation, DeviceId::MIN)..)
            .take_while(move |(owner, _)| *owner == incarnation)
            .map(|(_, id)| *id)
    }

    fn fence(
        &mut self,
        by: Incarnation,
        target: Incarnation,
        seen_beat: i64,
        now: Timestamp,
    ) -> Result<Vec<TakenOver>, StoreError> {
        self.check_node(by, "fence")?;
        let node = self.nodes.get(&target).ok_or(not_found("fence", "node"))?;
        if node.fenced {
            return Ok(Vec::new());
        }
        let beats = node.beat != seen_beat && !self.flawed(Flaw::FenceIgnoresBeat);
        if by == target || beats {
            return Err(conflict("fence", "node"));
        }
        self.transaction(|state| state.take_over(target, "fence", now))
    }

    /// Fences a node and takes all that it had.
    fn take_over(
        &mut self,
        target: Incarnation,
        operation: &'static str,
        now: Timestamp,
    ) -> Result<Vec<TakenOver>, StoreError> {
        let devices: Vec<DeviceId> = self.owned_by(target).collect();
        let mut taken = Vec::new();
        for device_id in devices {
            if !self.flawed(Flaw::FenceForgetsSending) {
                let interrupted = self.interrupt(operation, device_id, now)?;
                taken.extend(
                    interrupted
                        .into_iter()
                        .map(|message_id| TakenOver { message_id, device_id }),
                );
            }
            self.disown(device_id);
        }
        if let Some(node) = self.nodes.get_mut(&target) {
            node.fenced = true;
        }
        if self.planner == Some(target) && !self.flawed(Flaw::FenceKeepsPlanner) {
            self.planner = None;
        }
        Ok(taken)
    }

    /// Takes a device from its owner; its epoch grows, so that nothing of the old owner's counts any more.
    pub(super) fn disown(&mut self, device: DeviceId) {
        let row = self.devices[&device].as_ref().clone();
        // A deleted device is claimed by nobody: what is in doubt on it is for the sweep now.
        if !row.is_live() {
            self.mark(Mark::Device(device));
        }
        self.put_device(DeviceRow {
            owner: None,
            epoch: self.next_epoch(row.epoch),
            ..row
        });
    }

    fn next_epoch(&self, epoch: Epoch) -> Epoch {
        Epoch(epoch.0 + i64::from(!self.flawed(Flaw::EpochsStandStill)))
    }

    fn fence_the_dead(&mut self, by: Incarnation, now: Timestamp) -> Result<Vec<TakenOver>, StoreError> {
        if !self.exclusive {
            return Err(StoreError::new(StoreErrorKind::Unsupported, "fence_the_dead", "node"));
        }
        self.check_node(by, "fence_the_dead")?;
        let others: Vec<Incarnation> = self
            .nodes
            .iter()
            .filter(|(id, node)| **id != by && !node.fenced)
            .map(|(id, _)| *id)
            .collect();
        self.transaction(|state| {
            let mut taken = Vec::new();
            for target in others {
                taken.extend(state.take_over(target, "fence_the_dead", now)?);
            }
            Ok(taken)
        })
    }

    fn unowned_count(&self) -> u64 {
        let deleted = if self.flawed(Flaw::UnownedCountsDeleted) {
            let all = self.devices.values();
            all.filter(|row| row.owner.is_none() && !row.is_live()).count()
        } else {
            0
        };
        (self.unowned.len() + deleted) as u64
    }

    fn claim(&mut self, incarnation: Incarnation, limit: u32) -> Result<Vec<OwnedDevice>, StoreError> {
        self.check_node(incarnation, "claim")?;
        let owned_too = if self.flawed(Flaw::ClaimTakesOwned) {
            usize::MAX
        } else {
            0
        };
        let free = self.unowned.iter();
        let free = free.chain(self.live_devices.iter().map(|(_, id)| id).take(owned_too));
        let free: Vec<DeviceId> = free.copied().take(limit as usize).collect();
        Ok(free
            .into_iter()
            .map(|id| {
                let row = self.devices[&id].as_ref().clone();
                let claimed = DeviceRow {
                    owner: Some(incarnation),
                    epoch: self.next_epoch(row.epoch),
                    ..row
                };
                let owned = claimed.owned();
                self.put_device(claimed);
                owned
            })
            .collect())
    }

    fn release(
        &mut self,
        incarnation: Incarnation,
        devices: &[(DeviceId, Epoch)],
    ) -> Result<Vec<DeviceId>, StoreError> {
        self.check_node(incarnation, "release")?;
        let mut released = Vec::new();
        for (id, epoch) in devices {
            let owned = self
                .devices
                .get(id)
                .is_some_and(|row| row.owner == Some(incarnation) && row.epoch == *epoch);
            let sends = self.messages.sending_on(*id).is_some() && !self.flawed(Flaw::ReleaseGivesSending);
            if owned && !sends {
                self.disown(*id);
                released.push(*id);
            }
        }
        Ok(released)
    }

    fn plan_lease(&mut self, incarnation: Incarnation) -> Result<bool, StoreError> {
        self.check_node(incarnation, "plan_lease")?;
        let holder = *self.planner.get_or_insert(incarnation);
        Ok(holder == incarnation)
    }

    fn forget_nodes(&mut self, before: Timestamp, limit: u32) -> u64 {
        let all = self.flawed(Flaw::LiveNodesAreForgotten);
        let old: Vec<Incarnation> = self
            .nodes
            .iter()
            .filter(|(_, node)| (node.fenced || all) && node.beat_at < before)
            .map(|(id, _)| *id)
            .take(limit as usize)
            .collect();
        for id in &old {
            self.nodes.remove(id);
        }
        old.len() as u64
    }

    fn leave(&mut self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
        self.transaction(|state| state.take_over(incarnation, "leave", now))?;
        self.nodes.remove(&incarnation);
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    async fn seed(&self, candidate: &Seed) -> Result<Seed, StoreError> {
        Ok(self.lock().seed.get_or_insert_with(|| candidate.clone()).clone())
    }

    async fn join(&self, incarnation: Incarnation, name: &str, now: Timestamp) -> Result<(), StoreError> {
        self.lock().join(incarnation, name, now)
    }

    async fn beat(&self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
        self.lock().beat(incarnation, now)
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        Ok(self.lock().nodes())
    }

    async fn fence(
        &self,
        by: Incarnation,
        target: Incarnation,
        seen_beat: i64,
        now: Timestamp,
    ) -> Result<Vec<TakenOver>, StoreError> {
        self.lock().fence(by, target, seen_beat, now)
    }

    async fn fence_the_dead(&self, by: Incarnation, now: Timestamp) -> Result<Vec<TakenOver>, StoreError> {
        self.lock().fence_the_dead(by, now)
    }

    async fn unowned(&self) -> Result<u64, StoreError> {
        Ok(self.lock().unowned_count())
    }

    async fn claim(
        &self,
        incarnation: Incarnation,
        limit: u32,
        _now: Timestamp,
    ) -> Result<Vec<OwnedDevice>, StoreError> {
        self.lock().claim(incarnation, limit)
    }

    async fn release(
        &self,
        incarnation: Incarnation,
        devices: &[(DeviceId, Epoch)],
        _now: Timestamp,
    ) -> Result<Vec<DeviceId>, StoreError> {
        self.lock().release(incarnation, devices)
    }

    async fn devices_of(&self, incarnation: Incarnation) -> Result<Vec<OwnedDevice>, StoreError> {
        let state = self.lock();
        let devices = state.owned_by(incarnation);
        Ok(devices.map(|id| state.devices[&id].owned()).collect())
    }

    async fn plan_lease(&self, incarnation: Incarnation, _now: Timestamp) -> Result<bool, StoreError> {
        self.lock().plan_lease(incarnation)
    }

    async fn forget_nodes(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        Ok(self.lock().forget_nodes(before, limit))
    }

    async fn leave(&self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
        self.lock().leave(incarnation, now)
    }
}
