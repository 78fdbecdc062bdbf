//! Devices.

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use uuid::Uuid;
use wa_core::domain::access::RequestScope;
use wa_core::domain::device::{
    Credential, Device, Epoch, Hold, HoldReason, LinkState, OnDoubt, OwnedDevice, Restriction,
};
use wa_core::id::{DeviceId, UserId};
use wa_core::store::{DeviceStore, Page, PageRequest, StoreError};
use wa_core::time::Timestamp;

use crate::PostgresStore;
use crate::connections::Line;
use crate::error::{Done, Fail};
use crate::insert::{Bound, query};
use crate::leases::disown;
use crate::message_row::read_opt_phone;
use crate::row::{Columns, device_list, int, keys, opt_json, read_all, uuid, word};
use crate::settle::doubt_account;

macro_rules! device {
    ($from:literal) => {
        concat!(
            "SELECT d.id, d.user_id, d.name, d.description, d.platform, d.phone, d.jid, d.credential, d.base_url,
                d.hook_token, d.link_state, d.link_reason, d.link_at, d.hold_reason, d.hold_since_at, d.hold_detail,
                d.restriction_until_at, d.restriction_scope, d.restriction_cause, d.new_chats, d.delay, d.caps, d.on_doubt,
                d.last_active_at, d.created_at, d.updated_at, d.deleted_at, d.version, d.epoch, d.owner ",
            $from
        )
    };
}

/// `device`, by the primary key.
pub(crate) const VISIBLE: &str = device!(
    "FROM devices d WHERE d.id = $1 AND d.user_id = $2 AND d.deleted_at IS NULL
    AND ($3::uuid[] IS NULL OR d.id = ANY ($3))"
);
/// `devices`, by the unique index of user and id.
pub(crate) const PAGE: &str = device!(
    "FROM devices d WHERE d.user_id = $1 AND d.id > $2 AND d.deleted_at IS NULL
    AND ($3::uuid[] IS NULL OR d.id = ANY ($3))
    ORDER BY d.id LIMIT $4"
);
/// `device_by_hook`, by `devices_hook`.
pub(crate) const BY_HOOK: &str = device!(
    "FROM devices d
    WHERE d.hook_digest = $1 AND d.hook_digest IS NOT NULL AND d.deleted_at IS NULL"
);
/// `owned`, `claim`: by the primary key, in the order asked.
pub(crate) const OWNED: &str = device!(
    "FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN devices d ON d.id = j.value ORDER BY j.key"
);
/// `devices_of`, by `devices_owner`.
pub(crate) const OWNED_BY: &str = device!("FROM devices d WHERE d.owner = $1 ORDER BY d.id");
/// `users_with_devices`, by the index of live names, which begins with the user.
pub(crate) const USERS: &str = "
    SELECT DISTINCT user_id FROM devices WHERE deleted_at IS NULL AND user_id > $1
    ORDER BY user_id LIMIT $2";

/// `commit`: one device, deleted ones too, by the primary key.
pub(crate) const ONE: &str = device!("FROM devices d WHERE d.id = $1");
/// `commit`: adds a device.
pub(crate) const INSERT: &str = "
    WITH lane AS (INSERT INTO lanes (device_id) VALUES ($29))
    INSERT INTO devices (name, name_key, description, platform, phone, jid, credential, base_url, hook_token, hook_digest, link_state,
        link_reason, link_at, hold_reason, hold_since_at, hold_detail, restriction_until_at, restriction_scope,
        restriction_cause, new_chats, delay, caps, on_doubt, last_active_at, created_at, updated_at, deleted_at,
        version, id, user_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
        $25, $26, $27, $28, $29, $30)";
/// `commit`: replaces a device, by the primary key.
pub(crate) const UPDATE: &str = "
    UPDATE devices SET name = $1, name_key = $2, description = $3, platform = $4, phone = $5, jid = $6, credential = $7,
        base_url = $8, hook_token = $9, hook_digest = $10, link_state = $11, link_reason = $12, link_at = $13,
        hold_reason = $14, hold_since_at = $15, hold_detail = $16, restriction_until_at = $17,
        restriction_scope = $18, restriction_cause = $19, new_chats = $20, delay = $21, caps = $22, on_doubt = $23,
        last_active_at = $24, created_at = $25, updated_at = $26, deleted_at = $27, version = $28
    WHERE id = $29 AND user_id = $30";
/// `commit`: another live device with the same token, by `devices_hook`.
pub(crate) const HOOK_TAKEN: &str = "
    SELECT 1 FROM devices
    WHERE hook_digest = $1 AND hook_digest IS NOT NULL AND deleted_at IS NULL AND id <> $2";
/// `commit`: leaves the mark for `sweep`. By the primary key.
pub(crate) const MARK: &str = "UPDATE devices SET sweep = true WHERE id = $1";

/// Names are compared trimmed and case-folded.
pub(crate) fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

fn digest(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

fn read_device(c: &mut Columns<'_>) -> Done<Device> {
    read_owned(c).map(|owned| owned.device)
}

/// Reads a device with its owner.
pub(crate) fn read_owned(c: &mut Columns<'_>) -> Done<OwnedDevice> {
    let mut device = Device {
        id: c.key("id")?,
        user_id: c.key("user_id")?,
        name: c.text()?,
        description: c.text()?,
        platform: c.parse("platform")?,
        phone: read_opt_phone(c)?,
        jid: c.opt_text()?,
        credential: c.opt_text()?.map(Credential::new).unwrap_or_default(),
        base_url: c.opt_text()?,
        hook_token: c.text()?,
        link_state: c.kind("link_state", LinkState::from_u8)?,
        link_reason: c.opt_text()?,
        link_at: c.at()?,
        hold: None,
        restriction: None,
        new_chats: None,
        delay: None,
        caps: None,
        on_doubt: OnDoubt::default(),
        last_active_at: None,
        created_at: Timestamp::EPOCH,
        updated_at: Timestamp::EPOCH,
        deleted_at: None,
        version: 0,
    };
    let (reason, since_at, detail) = (
        c.opt_kind("hold_reason", HoldReason::from_u8)?,
        c.opt_at()?,
        c.opt_text()?,
    );
    if let (Some(reason), Some(since_at)) = (reason, since_at) {
        device.hold = Some(Hold {
            reason,
            since_at,
            detail,
        });
    }
    let (until_at, scope, cause) = (
        c.opt_at()?,
        c.opt_word("restriction_scope")?,
        c.opt_word("restriction_cause")?,
    );
    if let (Some(until_at), Some(scope)) = (until_at, scope) {
        device.restriction = Some(Restriction {
            until_at,
            scope,
            cause: cause.unwrap_or_default(),
        });
    }
    device.new_chats = c.opt_json("new_chats")?;
    device.delay = c.opt_json("delay")?;
    device.caps = c.opt_json("caps")?;
    device.on_doubt = c.kind("on_doubt", |number| match number {
        1 => Some(OnDoubt::Resolve),
        2 => Some(OnDoubt::Unknown),
        _ => None,
    })?;
    device.last_active_at = c.opt_at()?;
    device.created_at = c.at()?;
    device.updated_at = c.at()?;
    device.deleted_at = c.opt_at()?;
    device.version = c.int()?;
    Ok(OwnedDevice {
        device,
        epoch: Epoch(c.int()?),
        owner: c.opt_key("owner")?,
    })
}

fn bind<'q>(statement: Bound<'q>, device: &Device) -> Bound<'q> {
    let token = &device.hook_token;
    statement
        .bind(device.name.clone())
        .bind(folded(&device.name))
        .bind(device.description.clone())
        .bind(device.platform.as_str().to_owned())
        .bind(device.phone.map(|phone| phone.as_e164().to_owned()))
        .bind(device.jid.clone())
        .bind(device.credential.expose().map(str::to_owned))
        .bind(device.base_url.clone())
        .bind(token.clone())
        .bind((!token.is_empty()).then(|| digest(token)))
        .bind(device.link_state as u8)
        .bind(device.link_reason.clone())
        .bind(device.link_at.as_millis())
        .bind(device.hold.as_ref().map(|hold| hold.reason as u8))
        .bind(device.hold.as_ref().map(|hold| hold.since_at.as_millis()))
        .bind(device.hold.as_ref().and_then(|hold| hold.detail.clone()))
        .bind(device.restriction.map(|restriction| restriction.until_at.as_millis()))
        .bind(device.restriction.map(|restriction| word(&restriction.scope)))
        .bind(device.restriction.map(|restriction| word(&restriction.cause)))
        .bind(opt_json(device.new_chats.as_ref()))
        .bind(opt_json(device.delay.as_ref()))
        .bind(opt_json(device.caps.as_ref()))
        .bind(device.on_doubt as u8)
        .bind(device.last_active_at.map(|at| at.as_millis()))
        .bind(device.created_at.as_millis())
        .bind(device.updated_at.as_millis())
        .bind(device.deleted_at.map(|at| at.as_millis()))
        .bind(device.version)
        .bind(&device.id)
        .bind(&device.user_id)
}

/// Devices by id, deleted ones too, in the order asked.
pub(crate) async fn owned_devices(connection: &mut impl Line, ids: &[DeviceId]) -> Done<Vec<OwnedDevice>> {
    let rows = query(OWNED).bind(keys(ids)).fetch_all(connection).await?;
    read_all(&rows, read_owned)
}

/// A device of a user, deleted ones too.
pub(crate) async fn device_of(connection: &mut PgConnection, user: UserId, id: DeviceId) -> Done<OwnedDevice> {
    let row = query(ONE).bind(&id).fetch_optional(connection).await?;
    let owned = row.map(|row| read_owned(&mut Columns::of(&row))).transpose()?;
    owned
        .filter(|owned| owned.device.user_id == user)
        .ok_or(Fail::not_found("device"))
}

/// A device of a user that is not deleted.
pub(crate) async fn live_device(connection: &mut PgConnection, user: UserId, id: DeviceId) -> Done<OwnedDevice> {
    let owned = device_of(connection, user, id).await?;
    if owned.device.deleted_at.is_some() {
        return Err(Fail::not_found("device"));
    }
    Ok(owned)
}

async fn check_hook(connection: &mut PgConnection, device: &Device) -> Done<()> {
    if device.hook_token.is_empty() {
        return Ok(());
    }
    let statement = query(HOOK_TAKEN).bind(digest(&device.hook_token)).bind(&device.id);
    if statement.exists(connection).await? {
        return Err(Fail::conflict("device"));
    }
    Ok(())
}

/// Adds a device; a taken name or id is refused by the unique indexes.
pub(crate) async fn insert_device(connection: &mut PgConnection, device: &Device) -> Done<()> {
    check_hook(connection, device).await?;
    bind(query(INSERT), device).execute(connection).await?;
    Ok(())
}

async fn put_device(connection: &mut PgConnection, device: &Device) -> Done<()> {
    bind(query(UPDATE), device).execute(connection).await?;
    Ok(())
}

/// Replaces the settings of a device.
pub(crate) async fn update_device(connection: &mut PgConnection, device: Device, now: Timestamp) -> Done<()> {
    let old = live_device(connection, device.user_id, device.id).await?.device;
    if old.version != device.version {
        return Err(Fail::conflict("device"));
    }
    check_hook(connection, &device).await?;
    let cured = device.credential != old.credential
        && old
            .hold
            .as_ref()
            .is_some_and(|hold| hold.reason == HoldReason::Unauthenticated);
    let is_same = device.is_same_account(&old);
    let new = Device {
        jid: old.jid,
        link_state: old.link_state,
        link_reason: old.link_reason,
        link_at: old.link_at,
        hold: old.hold.filter(|_| !cured),
        restriction: old.restriction,
        new_chats: old.new_chats,
        last_active_at: old.last_active_at,
        created_at: old.created_at,
        deleted_at: None,
        version: old.version + 1,
        ..device
    };
    put_device(connection, &new).await?;
    if !is_same {
        doubt_account(connection, new.id, now).await?;
        disown(connection, new.id).await?;
    }
    Ok(())
}

/// Changes a device that is not deleted.
pub(crate) async fn change_device(
    connection: &mut PgConnection,
    user: UserId,
    id: DeviceId,
    change: impl FnOnce(&mut Device) + Send,
) -> Done<()> {
    let mut device = live_device(connection, user, id).await?.device;
    change(&mut device);
    put_device(connection, &device).await
}

/// Leaves the mark for `sweep`.
pub(crate) async fn mark_device(connection: &mut PgConnection, id: DeviceId) -> Done<()> {
    query(MARK).bind(&id).execute(connection).await?;
    Ok(())
}

impl PostgresStore {
    async fn find_device(&self, scope: &RequestScope, id: DeviceId) -> Done<Device> {
        let mut reader = self.reader().await?;
        let row = query(VISIBLE)
            .bind(&id)
            .bind(&scope.user_id)
            .bind(device_list(scope))
            .fetch_optional(&mut reader)
            .await?
            .ok_or(Fail::not_found("device"))?;
        read_device(&mut Columns::of(&row))
    }

    async fn device_page(&self, scope: &RequestScope, page: &PageRequest<DeviceId>) -> Done<Page<Device, DeviceId>> {
        let limit = page.clamped();
        let mut reader = self.reader().await?;
        let rows = query(PAGE)
            .bind(&scope.user_id)
            .bind(page.after.as_ref().map_or(Uuid::nil(), uuid))
            .bind(device_list(scope))
            .bind(int(limit as u64 + 1))
            .fetch_all(&mut reader)
            .await?;
        let rows = read_all(&rows, read_device)?;
        Ok(Page::cut(rows, limit, |device: &Device| device.id))
    }

    async fn device_with_hook(&self, token: &str) -> Done<Device> {
        let mut reader = self.reader().await?;
        let row = query(BY_HOOK)
            .bind(digest(token))
            .fetch_optional(&mut reader)
            .await?
            .ok_or(Fail::not_found("device"))?;
        read_device(&mut Columns::of(&row))
    }

    async fn users_page(&self, page: &PageRequest<UserId>) -> Done<Page<UserId, UserId>> {
        let limit = page.clamped();
        let mut reader = self.reader().await?;
        let rows = query(USERS)
            .bind(page.after.as_ref().map_or(Uuid::nil(), uuid))
            .bind(int(limit as u64 + 1))
            .fetch_all(&mut reader)
            .await?;
        let rows = read_all(&rows, |c| c.key("user_id"))?;
        Ok(Page::cut(rows, limit, |user| *user))
    }
}

#[async_trait]
impl DeviceStore for PostgresStore {
    async fn device(&self, scope: &RequestScope, id: DeviceId) -> Result<Device, StoreError> {
        let found = self.find_device(scope, id).await;
        found.map_err(|fail| fail.of("device", "device"))
    }

    async fn devices(
        &self,
        scope: &RequestScope,
        page: &PageRequest<DeviceId>,
    ) -> Result<Page<Device, DeviceId>, StoreError> {
        let found = self.device_page(scope, page).await;
        found.map_err(|fail| fail.of("devices", "device"))
    }

    async fn device_by_hook(&self, token: &str) -> Result<Device, StoreError> {
        let found = self.device_with_hook(token).await;
        found.map_err(|fail| fail.of("device_by_hook", "device"))
    }

    async fn owned(&self, ids: &[DeviceId]) -> Result<Vec<OwnedDevice>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            owned_devices(&mut reader, ids).await
        };
        read.await.map_err(|fail: Fail| fail.of("owned", "device"))
    }

    async fn users_with_devices(&self, page: &PageRequest<UserId>) -> Result<Page<UserId, UserId>, StoreError> {
        let found = self.users_page(page).await;
        found.map_err(|fail| fail.of("users_with_devices", "user"))
    }
}
