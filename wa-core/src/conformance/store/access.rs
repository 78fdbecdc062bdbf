//! People and their logins.

use super::world::{World, assert_kind};
use crate::domain::access::{LoginSession, User};
use crate::id::UserId;
use crate::store::StoreErrorKind;

/// Compares users field by field: a password hash has no equality of its own.
#[track_caller]
pub(super) fn assert_same_user(read: &User, expected: &User) {
    use secrecy::ExposeSecret;
    let hash = |user: &User| user.password_hash.expose_secret().to_owned();
    assert_eq!(hash(read), hash(expected));
    assert_eq!(
        (read.id, &read.login, &read.name, read.role, read.active),
        (
            expected.id,
            &expected.login,
            &expected.name,
            expected.role,
            expected.active
        )
    );
    assert!(read.settings == expected.settings, "the settings differ");
    assert_eq!(
        (read.created_at, read.updated_at, read.version),
        (expected.created_at, expected.updated_at, expected.version)
    );
}

fn session(world: &World, user_id: UserId, number: u8) -> LoginSession {
    LoginSession {
        token_hash: [number; 32],
        user_id,
        created_at: world.now(),
        expires_at: world.at(60),
    }
}

pub(super) async fn a_login_is_taken_once(world: World) {
    let user = world.rows.user();
    world.store.insert_user(&user).await.unwrap();
    let mut twin = world.rows.user();
    twin.login.clone_from(&user.login);
    assert_kind(world.store.insert_user(&twin).await, StoreErrorKind::Conflict);
    let mut other = world.rows.user();
    world.store.insert_user(&other).await.unwrap();
    other.login.clone_from(&user.login);
    assert_kind(world.store.update_user(&other).await, StoreErrorKind::Conflict);
}

pub(super) async fn a_login_is_found_whatever_its_case(world: World) {
    let mut user = world.rows.user();
    user.login = "ana@example.test".to_owned();
    world.store.insert_user(&user).await.unwrap();
    let found = world.store.user_by_login("ANA@Example.test").await.unwrap();
    assert_eq!(found.map(|user| user.id), Some(user.id));
    let nobody = world.store.user_by_login("an%").await.unwrap();
    assert!(nobody.is_none());
}

pub(super) async fn an_update_of_a_user_names_the_version_that_it_read(world: World) {
    let mut user = world.rows.user();
    world.store.insert_user(&user).await.unwrap();
    user.name = "Renamed".to_owned();
    user.active = false;
    user.settings.randomizer = true;
    user.password_hash = "$argon2id$other".to_owned().into();
    user.updated_at = world.at(1);
    world.store.update_user(&user).await.unwrap();
    assert_kind(world.store.update_user(&user).await, StoreErrorKind::Conflict);
    user.version += 1;
    assert_same_user(&world.store.user(user.id).await.unwrap(), &user);
}

pub(super) async fn a_user_that_does_not_exist_is_not_found(world: World) {
    let nobody = UserId::new(world.rows.ids(), world.now());
    assert_kind(world.store.user(nobody).await, StoreErrorKind::NotFound);
}

pub(super) async fn a_login_lasts_until_it_expires(world: World) {
    let user = world.user().await;
    let login = session(&world, user, 1);
    world.store.insert_session(&login).await.unwrap();
    let found = world.store.session(&login.token_hash, world.at(59)).await.unwrap();
    assert_eq!(found.as_ref(), Some(&login));
    assert_eq!(
        world.store.session(&login.token_hash, world.at(60)).await.unwrap(),
        None
    );
    assert_eq!(world.store.session(&[2; 32], world.now()).await.unwrap(), None);
}

pub(super) async fn a_login_that_is_used_lasts_longer(world: World) {
    let user = world.user().await;
    let login = session(&world, user, 1);
    world.store.insert_session(&login).await.unwrap();
    world
        .store
        .extend_session(&login.token_hash, world.at(600))
        .await
        .unwrap();
    let found = world.store.session(&login.token_hash, world.at(599)).await.unwrap();
    assert_eq!(found.map(|login| login.expires_at), Some(world.at(600)));
}

pub(super) async fn logging_out_ends_one_login_and_a_new_password_all_of_that_user(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    for (owner, number) in [(user, 1), (user, 2), (user, 3), (other, 4)] {
        world
            .store
            .insert_session(&session(&world, owner, number))
            .await
            .unwrap();
    }
    world.store.delete_session(&[1; 32]).await.unwrap();
    assert_eq!(world.store.session(&[1; 32], world.now()).await.unwrap(), None);
    assert!(world.store.session(&[2; 32], world.now()).await.unwrap().is_some());
    assert_eq!(world.store.delete_sessions_of(user).await.unwrap(), 2);
    assert_eq!(world.store.session(&[2; 32], world.now()).await.unwrap(), None);
    assert!(world.store.session(&[4; 32], world.now()).await.unwrap().is_some());
}

pub(super) async fn expired_logins_are_removed_and_live_ones_stay(world: World) {
    let user = world.user().await;
    for (number, end) in [(1, 10), (2, 20), (3, 30)] {
        let mut login = session(&world, user, number);
        login.expires_at = world.at(end);
        world.store.insert_session(&login).await.unwrap();
    }
    assert_eq!(world.store.prune_sessions(world.at(25)).await.unwrap(), 2);
    assert_eq!(world.store.prune_sessions(world.at(25)).await.unwrap(), 0);
    assert!(world.store.session(&[3; 32], world.at(25)).await.unwrap().is_some());
}

pub(super) async fn a_login_is_made_once_and_only_what_is_there_lasts_longer(world: World) {
    let user = world.user().await;
    let login = session(&world, user, 1);
    world.store.insert_session(&login).await.unwrap();
    assert_kind(world.store.insert_session(&login).await, StoreErrorKind::Conflict);
    world.store.extend_session(&[9; 32], world.at(600)).await.unwrap();
    assert_eq!(world.store.session(&[9; 32], world.now()).await.unwrap(), None);
}
