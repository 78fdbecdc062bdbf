//! Imports and the reports of what they refused.

use super::world::World;
use crate::conformance::fixtures::AWKWARD;
use crate::domain::access::RequestScope;
use crate::id::{ImportId, UserId};
use crate::store::{ImportRecord, ImportRefusal, ImportState, PageRequest};

fn record(world: &World, user_id: UserId) -> ImportRecord {
    ImportRecord {
        id: ImportId::new(world.rows.ids(), world.now()),
        user_id,
        name: AWKWARD.to_owned(),
        state: ImportState::Running,
        bytes_read: 0,
        bytes_total: Some(u64::from(u32::MAX) + 1),
        rows: 0,
        inserted: 0,
        duplicates: 0,
        refused: 0,
        message: None,
        created_at: world.now(),
        updated_at: world.now(),
    }
}

fn refusal(line: u64) -> ImportRefusal {
    ImportRefusal {
        line,
        field: "phone".to_owned(),
        reason: format!("line {line}: {AWKWARD}"),
    }
}

pub(super) async fn a_record_is_replaced_and_refusals_are_appended(world: World) {
    let user = world.user().await;
    let scope = RequestScope::user(user);
    let mut import = record(&world, user);
    world
        .store
        .put_import(&import, &[refusal(2), refusal(5)])
        .await
        .unwrap();
    assert_eq!(world.store.import(&scope, import.id).await.unwrap(), import);
    import.state = ImportState::Done;
    import.bytes_read = u64::from(u32::MAX) + 1;
    (import.rows, import.inserted, import.duplicates, import.refused) = (10, 6, 1, 3);
    import.message = Some("done".to_owned());
    import.updated_at = world.at(1);
    world.store.put_import(&import, &[refusal(9)]).await.unwrap();
    assert_eq!(world.store.import(&scope, import.id).await.unwrap(), import);
    let refused = world.store.import_refusals(&scope, import.id, 0, 100).await.unwrap();
    assert_eq!(refused, [refusal(2), refusal(5), refusal(9)]);
}

pub(super) async fn refused_rows_are_read_after_a_line_and_up_to_a_limit(world: World) {
    let user = world.user().await;
    let scope = RequestScope::user(user);
    let import = record(&world, user);
    let refusals: Vec<_> = (1..=7).map(refusal).collect();
    world.store.put_import(&import, &refusals).await.unwrap();
    let page = |after, limit| world.store.import_refusals(&scope, import.id, after, limit);
    assert_eq!(page(0, 3).await.unwrap(), refusals[..3]);
    assert_eq!(page(3, 3).await.unwrap(), refusals[3..6]);
    assert_eq!(page(6, 3).await.unwrap(), refusals[6..]);
    assert!(page(7, 3).await.unwrap().is_empty());
}

pub(super) async fn imports_are_listed_newest_first(world: World) {
    let user = world.user().await;
    let imports = [record(&world, user), record(&world, user), record(&world, user)];
    for import in &imports {
        world.store.put_import(import, &[]).await.unwrap();
    }
    let page = PageRequest::first(10);
    let listed = world.store.imports(&RequestScope::user(user), &page).await.unwrap();
    let ids: Vec<_> = listed.rows.iter().map(|import| import.id).collect();
    assert_eq!(ids, [imports[2].id, imports[1].id, imports[0].id]);
}

pub(super) async fn a_crash_fails_running_imports_and_no_others(world: World) {
    let user = world.user().await;
    let scope = RequestScope::user(user);
    let running = record(&world, user);
    world.store.put_import(&running, &[]).await.unwrap();
    let mut ended = Vec::new();
    for state in [ImportState::Done, ImportState::Cancelled, ImportState::Failed] {
        let mut import = record(&world, user);
        import.state = state;
        world.store.put_import(&import, &[]).await.unwrap();
        ended.push(import);
    }
    let fail = |before, now| world.store.fail_running_imports("stopped", before, now);
    let moving = fail(running.updated_at, world.at(4)).await.unwrap();
    assert_eq!(moving, 0, "it moves on another node");
    assert_eq!(fail(world.at(5), world.at(5)).await.unwrap(), 1);
    let now = world.store.import(&scope, running.id).await.unwrap();
    assert_eq!(
        (now.state, now.message.as_deref()),
        (ImportState::Failed, Some("stopped"))
    );
    assert_eq!(now.updated_at, world.at(5));
    for import in ended {
        assert_eq!(world.store.import(&scope, import.id).await.unwrap(), import);
    }
    assert_eq!(fail(world.at(6), world.at(6)).await.unwrap(), 0);
}
