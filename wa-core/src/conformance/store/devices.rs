//! Devices: names, versions, what settings leave alone, owners' fences.

use super::world::{World, assert_kind};
use crate::domain::access::RequestScope;
use crate::domain::device::{
    Credential, Device, Epoch, Hold, HoldReason, LinkState, NewChats, NewChatsWarning, Restriction, RestrictionCause,
};
use crate::id::{DeviceId, UserId};
use crate::store::{Change, ChangeSet, Fence, StoreErrorKind};
use crate::transport::RestrictionScope;

fn insert(device: &Device) -> Change {
    Change::InsertDevice(Box::new(device.clone()))
}

fn update(device: &Device) -> Change {
    Change::UpdateDevice(Box::new(device.clone()))
}

fn hold(device: &Device, reason: Option<HoldReason>) -> Change {
    Change::SetDeviceHold {
        user_id: device.user_id,
        device_id: device.id,
        hold: reason.map(|reason| Hold {
            reason,
            since_at: device.created_at,
            detail: Some("said the vendor".to_owned()),
        }),
    }
}

/// What a device is known by at WhatsApp once it is linked.
const JID: &str = "60129999977:7@s.whatsapp.net";

fn link(user_id: UserId, device_id: DeviceId, fence: Option<Fence>, state: LinkState) -> Change {
    Change::SetDeviceLink {
        user_id,
        device_id,
        fence,
        state,
        reason: Some("said the socket".to_owned()),
        phone: None,
        jid: None,
    }
}

pub(super) async fn a_name_is_taken_once_per_user_whatever_its_case_and_blanks(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let mut device = world.rows.device(user);
    device.name = "Kedai Satu".to_owned();
    world.insert_device(&device).await;
    let mut twin = world.rows.device(user);
    twin.name = "  kedai SATU ".to_owned();
    world.refused(insert(&twin), StoreErrorKind::Conflict).await;
    let mut foreign = world.rows.device(other);
    foreign.name.clone_from(&device.name);
    world.insert_device(&foreign).await;
}

pub(super) async fn the_name_of_a_deleted_device_is_free_again(world: World) {
    let user = world.user().await;
    let device = world.rows.device(user);
    world.insert_device(&device).await;
    world
        .commit(Change::DeleteDevice {
            user_id: user,
            device_id: device.id,
        })
        .await;
    let mut next = world.rows.device(user);
    next.name.clone_from(&device.name);
    world.insert_device(&next).await;
}

pub(super) async fn an_update_to_a_taken_name_is_refused(world: World) {
    let user = world.user().await;
    let (first, mut second) = (world.rows.device(user), world.rows.device(user));
    world.insert_device(&first).await;
    world.insert_device(&second).await;
    second.name = first.name.to_uppercase();
    world.refused(update(&second), StoreErrorKind::Conflict).await;
}

pub(super) async fn an_update_writes_the_settings_and_the_next_version(world: World) {
    let user = world.user().await;
    let mut device = world.rows.device(user);
    world.insert_device(&device).await;
    device.name = "Renamed".to_owned();
    device.description = "A note".to_owned();
    device.credential = Credential::new("another");
    device.base_url = Some("https://example.test".to_owned());
    device.updated_at = world.at(1);
    world.commit_at(update(&device), world.at(1)).await;
    device.version += 1;
    assert_eq!(world.device_of(user, device.id).await, device);
}

pub(super) async fn an_update_of_an_older_version_is_refused_and_changes_nothing(world: World) {
    let user = world.user().await;
    let mut device = world.rows.device(user);
    world.insert_device(&device).await;
    world.commit(update(&device)).await;
    device.name = "Late".to_owned();
    world.refused(update(&device), StoreErrorKind::Conflict).await;
    assert_ne!(world.device_of(user, device.id).await.name, "Late");
}

pub(super) async fn an_update_leaves_link_hold_and_restriction_alone(world: World) {
    let user = world.user().await;
    let read = world.rows.device(user);
    world.insert_device(&read).await;
    let restriction = Restriction {
        until_at: world.at(60),
        scope: RestrictionScope::All,
        cause: RestrictionCause::Banned,
    };
    let learned = Change::SetDeviceLink {
        user_id: user,
        device_id: read.id,
        fence: None,
        state: LinkState::Disconnected,
        reason: Some("said the socket".to_owned()),
        phone: None,
        jid: Some(JID.to_owned()),
    };
    let set = ChangeSet::one(learned)
        .and(hold(&read, Some(HoldReason::ErrorRate)))
        .and(Change::SetDeviceRestriction {
            user_id: user,
            device_id: read.id,
            restriction: Some(restriction),
        });
    world.commit(set).await;
    world.commit(update(&read)).await;
    let device = world.device_of(user, read.id).await;
    assert_eq!(device.link_state, LinkState::Disconnected);
    assert_eq!(device.link_reason.as_deref(), Some("said the socket"));
    assert_eq!(
        device.jid.as_deref(),
        Some(JID),
        "a form that was read before knows nothing of it"
    );
    assert_eq!(device.hold.map(|hold| hold.reason), Some(HoldReason::ErrorRate));
    assert_eq!(device.restriction, Some(restriction));
}

pub(super) async fn link_hold_and_restriction_leave_the_version_of_the_settings_alone(world: World) {
    let user = world.user().await;
    let device = world.rows.device(user);
    world.insert_device(&device).await;
    let set = ChangeSet::one(link(user, device.id, None, LinkState::Ready))
        .and(hold(&device, Some(HoldReason::ByPerson)))
        .and(Change::SetDeviceRestriction {
            user_id: user,
            device_id: device.id,
            restriction: None,
        });
    world.commit(set).await;
    assert_eq!(world.device_of(user, device.id).await.version, device.version);
}

pub(super) async fn a_new_credential_ends_a_hold_for_the_old_one_and_no_other_hold(world: World) {
    let user = world.user().await;
    for (reason, credential, ends) in [
        (HoldReason::Unauthenticated, "new", true),
        (HoldReason::Unauthenticated, "old", false),
        (HoldReason::ByPerson, "new", false),
        (HoldReason::ErrorRate, "new", false),
    ] {
        let mut device = world.rows.device(user);
        device.credential = Credential::new("old");
        world.insert_device(&device).await;
        world.commit(hold(&device, Some(reason))).await;
        device.credential = Credential::new(credential);
        world.commit(update(&device)).await;
        let held = world.device_of(user, device.id).await.hold;
        assert_eq!(held.is_none(), ends, "{reason:?} with the {credential} credential");
    }
}

pub(super) async fn a_hold_is_kept_whole_and_ends_when_asked(world: World) {
    let user = world.user().await;
    let device = world.rows.device(user);
    world.insert_device(&device).await;
    world.commit(hold(&device, Some(HoldReason::ByPerson))).await;
    let held = world.device_of(user, device.id).await.hold.unwrap();
    assert_eq!((held.reason, held.since_at), (HoldReason::ByPerson, device.created_at));
    assert_eq!(held.detail.as_deref(), Some("said the vendor"));
    world.commit(hold(&device, None)).await;
    assert_eq!(world.device_of(user, device.id).await.hold, None);
}

fn held_by_engine(device: &Device, version: Option<i64>) -> Change {
    Change::HoldDevice {
        user_id: device.user_id,
        device_id: device.id,
        hold: Hold {
            reason: HoldReason::Unauthenticated,
            since_at: device.created_at,
            detail: None,
        },
        version,
    }
}

pub(super) async fn a_hold_of_the_engine_leaves_that_of_a_person(world: World) {
    let user = world.user().await;
    let device = world.rows.device(user);
    world.insert_device(&device).await;
    for (reason, taken) in [(HoldReason::ByPerson, false), (HoldReason::ErrorRate, true)] {
        world.commit(hold(&device, Some(reason))).await;
        if taken {
            world.commit(held_by_engine(&device, None)).await;
        } else {
            world
                .refused(held_by_engine(&device, None), StoreErrorKind::Conflict)
                .await;
        }
        let expected = if taken { HoldReason::Unauthenticated } else { reason };
        assert_eq!(world.device_of(user, device.id).await.hold.unwrap().reason, expected);
    }
}

pub(super) async fn a_hold_for_an_older_version_of_the_settings_is_refused(world: World) {
    let user = world.user().await;
    let device = world.rows.device(user);
    world.insert_device(&device).await;
    let changed = Device {
        credential: Credential::new("another"),
        ..device.clone()
    };
    world.commit(Change::UpdateDevice(Box::new(changed))).await;
    let of = |version| held_by_engine(&device, Some(version));
    world.refused(of(device.version), StoreErrorKind::Conflict).await;
    assert_eq!(world.device_of(user, device.id).await.hold, None);
    world.commit(of(device.version + 1)).await;
    assert!(world.device_of(user, device.id).await.hold.is_some());
    let other = world.user().await;
    let foreign = Change::HoldDevice {
        user_id: other,
        device_id: device.id,
        hold: Hold {
            reason: HoldReason::ErrorRate,
            since_at: device.created_at,
            detail: None,
        },
        version: None,
    };
    world.refused(foreign, StoreErrorKind::NotFound).await;
}

pub(super) async fn a_restriction_is_kept_and_ends_when_asked(world: World) {
    let user = world.user().await;
    let device_id = world.device(user).await;
    for restriction in [
        Some(Restriction {
            until_at: world.at(77),
            scope: RestrictionScope::Cold,
            cause: RestrictionCause::Timelock,
        }),
        Some(Restriction {
            until_at: world.at(78),
            scope: RestrictionScope::All,
            cause: RestrictionCause::Banned,
        }),
        None,
    ] {
        world
            .commit(Change::SetDeviceRestriction {
                user_id: user,
                device_id,
                restriction,
            })
            .await;
        assert_eq!(world.device_of(user, device_id).await.restriction, restriction);
    }
}

pub(super) async fn a_limit_of_new_chats_is_kept_and_ends_when_asked(world: World) {
    let user = world.user().await;
    let read = world.rows.device(user);
    let device_id = read.id;
    world.insert_device(&read).await;
    let told = |used| NewChats {
        total: 50,
        used,
        warning: NewChatsWarning::First,
        ends_at: world.at(1_000),
        told_at: world.at(1),
    };
    for new_chats in [Some(told(3)), Some(told(4)), None, Some(told(5))] {
        world
            .commit(Change::SetDeviceNewChats {
                user_id: user,
                device_id,
                new_chats,
            })
            .await;
        assert_eq!(world.device_of(user, device_id).await.new_chats, new_chats);
    }
    world.commit(update(&read)).await;
    let device = world.device_of(user, device_id).await;
    assert_eq!((device.new_chats, device.version), (Some(told(5)), read.version + 1));
}

pub(super) async fn a_link_change_keeps_state_reason_instant_number_and_identity(world: World) {
    let user = world.user().await;
    let mut fresh = world.rows.device(user);
    fresh.link_state = LinkState::Initializing;
    world.insert_device(&fresh).await;
    let device = fresh.id;
    let phone = world.rows.phone(7);
    let change = Change::SetDeviceLink {
        user_id: user,
        device_id: device,
        fence: None,
        state: LinkState::Ready,
        reason: None,
        phone: Some(phone),
        jid: Some(JID.to_owned()),
    };
    world.commit_at(change, world.at(5)).await;
    let linked = world.device_of(user, device).await;
    assert_eq!(
        (linked.link_state, linked.link_reason, linked.link_at),
        (LinkState::Ready, None, world.at(5))
    );
    assert_eq!((linked.phone, linked.jid.as_deref()), (Some(phone), Some(JID)));

    world
        .commit_at(link(user, device, None, LinkState::Disconnected), world.at(6))
        .await;
    let lost = world.device_of(user, device).await;
    assert_eq!(
        (lost.phone, lost.jid.as_deref()),
        (Some(phone), Some(JID)),
        "a change without a number keeps the one known"
    );
    assert_eq!(lost.link_at, world.at(6));
    world
        .commit_at(link(user, device, None, LinkState::Disconnected), world.at(7))
        .await;
    let same = world.device_of(user, device).await;
    assert_eq!(
        same.link_at,
        world.at(6),
        "said twice, it is so since it was said first"
    );
}

pub(super) async fn a_link_change_of_an_owner_needs_the_epoch_of_the_device(world: World) {
    let stage = world.stage().await;
    let right = Fence {
        incarnation: stage.node,
        epoch: stage.epoch,
    };
    let change = |fence| link(stage.user, stage.device, Some(fence), LinkState::Error);
    let stranger = world.node().await;
    for wrong in [
        Fence {
            epoch: Epoch(stage.epoch.0 - 1),
            ..right
        },
        Fence {
            epoch: Epoch(stage.epoch.0 + 1),
            ..right
        },
        Fence {
            incarnation: stranger,
            ..right
        },
    ] {
        world.refused(change(wrong), StoreErrorKind::Conflict).await;
    }
    world.commit(change(right)).await;
    stage.take_over().await;
    world.refused(change(right), StoreErrorKind::Fenced).await;
}

pub(super) async fn what_follows_an_owners_right_is_done_only_while_it_owns_the_device(world: World) {
    let stage = world.stage().await;
    let right = Fence {
        incarnation: stage.node,
        epoch: stage.epoch,
    };
    let restriction = Restriction {
        until_at: world.at(77),
        scope: RestrictionScope::Cold,
        cause: RestrictionCause::Timelock,
    };
    let said = |fence| {
        ChangeSet::one(Change::Owned {
            user_id: stage.user,
            device_id: stage.device,
            fence,
        })
        .and(Change::SetDeviceRestriction {
            user_id: stage.user,
            device_id: stage.device,
            restriction: Some(restriction),
        })
    };
    let stranger = world.node().await;
    for wrong in [
        Fence {
            epoch: Epoch(stage.epoch.0 + 1),
            ..right
        },
        Fence {
            incarnation: stranger,
            ..right
        },
    ] {
        world.refused(said(wrong), StoreErrorKind::Conflict).await;
        assert_eq!(world.device_of(stage.user, stage.device).await.restriction, None);
    }
    world.commit(said(right)).await;
    let known = world.device_of(stage.user, stage.device).await.restriction;
    assert_eq!(known, Some(restriction));
    stage.take_over().await;
    world.refused(said(right), StoreErrorKind::Fenced).await;
}

pub(super) async fn a_deleted_device_is_not_read_but_still_known_to_the_engine(world: World) {
    let user = world.user().await;
    let device = world.device(user).await;
    let change = Change::DeleteDevice {
        user_id: user,
        device_id: device,
    };
    world.commit_at(change, world.at(9)).await;
    let scope = RequestScope::user(user);
    assert_kind(world.store.device(&scope, device).await, StoreErrorKind::NotFound);
    let page = world
        .store
        .devices(&scope, &crate::store::PageRequest::first(10))
        .await
        .unwrap();
    assert!(page.rows.is_empty());
    let owned = world.store.owned(&[device]).await.unwrap();
    assert_eq!(owned[0].device.deleted_at, Some(world.at(9)));
}

pub(super) async fn a_callback_token_finds_its_device_and_no_other(world: World) {
    let user = world.user().await;
    let (one, two) = (world.rows.device(user), world.rows.device(user));
    world.insert_device(&one).await;
    world.insert_device(&two).await;
    assert_eq!(world.store.device_by_hook(&two.hook_token).await.unwrap(), two);
    for token in ["", "hook", "hook-%", &one.hook_token.to_uppercase()] {
        assert_kind(world.store.device_by_hook(token).await, StoreErrorKind::NotFound);
    }
    world
        .commit(Change::DeleteDevice {
            user_id: user,
            device_id: one.id,
        })
        .await;
    assert_kind(
        world.store.device_by_hook(&one.hook_token).await,
        StoreErrorKind::NotFound,
    );
}

pub(super) async fn a_device_without_a_callback_token_is_found_by_none(world: World) {
    let user = world.user().await;
    for _ in 0..2 {
        let mut device = world.rows.device(user);
        device.hook_token = String::new();
        world.insert_device(&device).await;
    }
    assert_kind(world.store.device_by_hook("").await, StoreErrorKind::NotFound);
}

pub(super) async fn a_changed_callback_token_takes_effect_at_once(world: World) {
    let user = world.user().await;
    let mut device = world.rows.device(user);
    world.insert_device(&device).await;
    let old = std::mem::replace(&mut device.hook_token, "fresh-token".to_owned());
    world.commit(update(&device)).await;
    assert_kind(world.store.device_by_hook(&old).await, StoreErrorKind::NotFound);
    assert_eq!(world.store.device_by_hook("fresh-token").await.unwrap().id, device.id);
}

pub(super) async fn owned_tells_owner_and_epoch_and_leaves_out_what_does_not_exist(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let (mine, theirs) = (world.device(user).await, world.device(other).await);
    let free = world.store.owned(&[mine]).await.unwrap();
    assert_eq!(free[0].owner, None);
    let node = world.node().await;
    let claimed = world.claim(node).await;
    let missing = DeviceId::new(world.rows.ids(), world.now());
    let mut owned = world.store.owned(&[missing, theirs, mine]).await.unwrap();
    owned.sort_by_key(|owned| owned.device.id);
    assert_eq!(owned, claimed);
    assert!(owned.iter().all(|owned| owned.owner == Some(node)));
    assert!(owned[0].epoch > free[0].epoch);
}

pub(super) async fn the_users_of_the_engine_are_those_with_devices(world: World) {
    let (first, without, last) = (world.user().await, world.user().await, world.user().await);
    world.device(last).await;
    world.device(first).await;
    world.device(first).await;
    let page = crate::store::PageRequest::first(10);
    let users = world.store.users_with_devices(&page).await.unwrap();
    assert_eq!(users.rows, [first, last]);
    assert!(!users.rows.contains(&without));
}

pub(super) async fn a_deleted_device_cannot_be_changed_any_more(world: World) {
    let user = world.user().await;
    let device = world.rows.device(user);
    world.insert_device(&device).await;
    let delete = || Change::DeleteDevice {
        user_id: user,
        device_id: device.id,
    };
    world.commit(delete()).await;
    let deleted = world.store.owned(&[device.id]).await.unwrap().remove(0).device;
    for change in [
        delete(),
        update(&deleted),
        hold(&device, None),
        link(user, device.id, None, LinkState::Ready),
        Change::SetDeviceRestriction {
            user_id: user,
            device_id: device.id,
            restriction: None,
        },
    ] {
        world.refused(change, StoreErrorKind::NotFound).await;
    }
    let users = world
        .store
        .users_with_devices(&crate::store::PageRequest::first(9))
        .await
        .unwrap();
    assert!(users.rows.is_empty(), "the engine has nothing to do for this user");
}
