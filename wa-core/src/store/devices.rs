//! Devices.

use async_trait::async_trait;

use super::{Page, PageRequest, StoreError};
use crate::domain::access::RequestScope;
use crate::domain::device::{Device, OwnedDevice};
use crate::id::{DeviceId, UserId};

/// Reads devices. They are changed by `commit`.
#[async_trait]
pub trait DeviceStore: Send + Sync {
    /// One device that is not deleted, within a request's scope.
    async fn device(&self, scope: &RequestScope, id: DeviceId) -> Result<Device, StoreError>;

    /// A page of devices that are not deleted, by id.
    async fn devices(
        &self,
        scope: &RequestScope,
        page: &PageRequest<DeviceId>,
    ) -> Result<Page<Device, DeviceId>, StoreError>;

    /// The device whose callback path holds this token; the caller compares nothing itself.
    ///
    /// To ensure correctness: found by a digest of the token, so that timing tells nothing about it.
    async fn device_by_hook(&self, token: &str) -> Result<Device, StoreError>;

    /// Devices of any user with their owners and epochs, deleted ones too, for the engine; those that do not exist are left out.
    async fn owned(&self, ids: &[DeviceId]) -> Result<Vec<OwnedDevice>, StoreError>;

    /// The users that exist for the engine: those with devices that are not deleted, by id.
    async fn users_with_devices(&self, page: &PageRequest<UserId>) -> Result<Page<UserId, UserId>, StoreError>;
}
