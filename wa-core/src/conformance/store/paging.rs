//! Pages: together they hold every row once, whatever their size.

use std::fmt::Debug;
use std::future::Future;

use super::world::World;
use crate::domain::access::RequestScope;
use crate::store::{
    CampaignFilter, Change, ImportRecord, ImportState, LeadFilter, MessageFilter, PAGE_MAX, Page, PageRequest,
    StoreError,
};

/// Reads all pages of a size.
async fn walk<T, K, F>(limit: u32, read: impl Fn(PageRequest<K>) -> F) -> Vec<T>
where
    K: Clone,
    F: Future<Output = Result<Page<T, K>, StoreError>>,
{
    let mut rows = Vec::new();
    let mut page = PageRequest::first(limit);
    loop {
        let got = read(page.clone()).await.unwrap();
        assert!(
            got.rows.len() <= limit.max(1) as usize,
            "a page holds at most its limit"
        );
        assert!(
            got.next.is_none() || !got.rows.is_empty(),
            "a page that is not the last holds a row"
        );
        rows.extend(got.rows);
        assert!(rows.len() < 1_000, "the pages never end");
        let Some(next) = got.next else { return rows };
        page.after = Some(next);
    }
}

async fn covers<T, K, F>(expected: &[T], read: impl Fn(PageRequest<K>) -> F)
where
    T: PartialEq + Debug,
    K: Clone,
    F: Future<Output = Result<Page<T, K>, StoreError>>,
{
    let size = u32::try_from(expected.len()).unwrap();
    for limit in [1, 2, size - 1, size, size + 1, PAGE_MAX] {
        assert_eq!(walk(limit, &read).await, expected, "in pages of {limit}");
    }
    let whole = read(PageRequest::first(size)).await.unwrap();
    assert!(whole.next.is_none(), "the last page says so although it is full");
}

pub(super) async fn pages_of_devices_leads_and_messages_hold_every_row_once(world: World) {
    let stage = world.stage().await;
    let scope = RequestScope::user(stage.user);
    let store = &world.store;
    let mut devices = vec![world.device_of(stage.user, stage.device).await];
    let (mut leads, mut messages) = (Vec::new(), Vec::new());
    for n in 0..6 {
        let device = world.rows.device(stage.user);
        world.insert_device(&device).await;
        devices.push(device);
        // The same instant and text everywhere: only ids tell rows apart.
        let mut lead = world.rows.lead(stage.user, None);
        lead.name = "Same".to_owned();
        world.insert_lead(&lead).await;
        leads.push(lead);
        let id = stage.queued_to(world.rows.phone(n)).await;
        messages.push(stage.row(id).await);
    }
    covers(&devices, |page| {
        let (store, scope) = (store.clone(), scope.clone());
        async move { store.devices(&scope, &page).await }
    })
    .await;
    covers(&leads, |page| {
        let (store, scope) = (store.clone(), scope.clone());
        async move { store.leads(&scope, &LeadFilter::default(), &page).await }
    })
    .await;
    covers(&messages, |page| {
        let (store, scope) = (store.clone(), scope.clone());
        async move { store.messages(&scope, &MessageFilter::default(), &page).await }
    })
    .await;
}

pub(super) async fn pages_of_campaigns_texts_suppressions_imports_and_users_hold_every_row_once(world: World) {
    let user = world.user().await;
    let scope = RequestScope::user(user);
    let store = &world.store;
    let (mut campaigns, mut texts, mut imports) = (Vec::new(), Vec::new(), Vec::new());
    let mut suppressions = Vec::new();
    for n in 0..5 {
        campaigns.push(world.draft(user).await);
        let saved = world.rows.saved_text(user);
        world.commit(Change::InsertSavedText(Box::new(saved.clone()))).await;
        texts.push(saved);
        world.suppress(user, world.rows.phone(n)).await;
        suppressions.push(world.rows.suppression(user, world.rows.phone(n)));
        let import = ImportRecord {
            id: crate::id::ImportId::new(world.rows.ids(), world.now()),
            user_id: user,
            name: String::new(),
            state: ImportState::Running,
            bytes_read: n.into(),
            bytes_total: None,
            rows: 0,
            inserted: 0,
            duplicates: 0,
            refused: 0,
            message: None,
            created_at: world.now(),
            updated_at: world.now(),
        };
        store.put_import(&import, &[]).await.unwrap();
        imports.push(import);
    }
    campaigns.reverse();
    imports.reverse();
    suppressions.sort_by_key(|suppression| suppression.person);
    covers(&campaigns, |page| {
        let (store, scope) = (store.clone(), scope.clone());
        async move { store.campaigns(&scope, &CampaignFilter::default(), &page).await }
    })
    .await;
    covers(&texts, |page| {
        let (store, scope) = (store.clone(), scope.clone());
        async move { store.saved_texts(&scope, &page).await }
    })
    .await;
    covers(&suppressions, |page| {
        let (store, scope) = (store.clone(), scope.clone());
        async move { store.suppressions(&scope, &page).await }
    })
    .await;
    covers(&imports, |page| {
        let (store, scope) = (store.clone(), scope.clone());
        async move { store.imports(&scope, &page).await }
    })
    .await;
    let mut users = vec![user];
    for _ in 0..4 {
        users.push(world.user().await);
    }
    for owner in &users {
        world.device(*owner).await;
        world.device(*owner).await;
    }
    for limit in [1, 2, 4, 5, 6] {
        let listed = walk(limit, |page| {
            let store = store.clone();
            async move { store.users(&page).await }
        })
        .await;
        assert_eq!(listed.iter().map(|user| user.id).collect::<Vec<_>>(), users);
    }
    covers(&users, |page| {
        let store = store.clone();
        async move { store.users_with_devices(&page).await }
    })
    .await;
}

pub(super) async fn a_filtered_list_is_paged_like_any_other(world: World) {
    let stage = world.stage().await;
    let scope = RequestScope::user(stage.user);
    let mut expected = Vec::new();
    for n in 0..9 {
        let id = stage.queued_to(world.rows.phone(n)).await;
        if n % 3 == 0 {
            expected.push(stage.row(id).await);
        } else {
            stage.opt_out(id).await;
        }
    }
    let filter = MessageFilter {
        states: vec![crate::domain::message::MessageState::Queued],
        ..MessageFilter::default()
    };
    let store = &world.store;
    covers(&expected, |page| {
        let (store, scope, filter) = (store.clone(), scope.clone(), filter.clone());
        async move { store.messages(&scope, &filter, &page).await }
    })
    .await;
}

pub(super) async fn messages_are_filtered_by_everything_that_a_filter_names(world: World) {
    let stage = world.stage().await;
    let scope = RequestScope::user(stage.user);
    let lead = world.lead(stage.user, Some(stage.device)).await;
    let mut to_lead = stage.message_to(lead.phone);
    to_lead.lead_id = Some(lead.id);
    let person = to_lead.person;
    let of_lead = world.insert(to_lead).await;
    let direct = stage.direct().await;
    let (first, _) = stage.unknown().await;
    let second = world.insert(world.rows.resend(&stage.row(first).await)).await;
    let shown = async |filter: MessageFilter| {
        let page = world
            .store
            .messages(&scope, &filter, &PageRequest::first(9))
            .await
            .unwrap();
        page.rows.iter().map(|message| message.id).collect::<Vec<_>>()
    };
    let by = MessageFilter::default;
    use crate::domain::message::{MessageScope, MessageState};
    assert_eq!(shown(by()).await, [of_lead, direct, second]);
    let with_superseded = MessageFilter {
        with_superseded: true,
        ..by()
    };
    assert_eq!(shown(with_superseded).await, [of_lead, direct, first, second]);
    let scoped = MessageFilter {
        scope: Some(MessageScope::Direct),
        ..by()
    };
    assert_eq!(shown(scoped).await, [direct]);
    let to = MessageFilter {
        lead_id: Some(lead.id),
        ..by()
    };
    assert_eq!(shown(to).await, [of_lead]);
    let to = MessageFilter {
        person: Some(person),
        ..by()
    };
    assert_eq!(shown(to).await, [of_lead]);
    let states = vec![MessageState::Unknown, MessageState::Sent];
    let in_states = MessageFilter {
        states,
        with_superseded: true,
        ..by()
    };
    assert_eq!(shown(in_states).await, [first]);
    let other = world.device(stage.user).await;
    let on = MessageFilter {
        device_id: Some(other),
        ..by()
    };
    assert!(shown(on).await.is_empty());
}

pub(super) async fn a_page_asked_for_too_large_or_too_small_is_clamped(world: World) {
    let stage = world.stage().await;
    let messages: Vec<_> = (0..PAGE_MAX + 5)
        .map(|n| stage.message_to(world.rows.phone(n)))
        .collect();
    for batch in messages.chunks(1_000) {
        world.commit(Change::InsertMessages(batch.to_vec())).await;
    }
    let scope = RequestScope::user(stage.user);
    let filter = MessageFilter::default();
    let huge = world
        .store
        .messages(&scope, &filter, &PageRequest::first(u32::MAX))
        .await
        .unwrap();
    assert_eq!(huge.rows.len(), PAGE_MAX as usize);
    let rest = PageRequest::after(huge.next.unwrap(), u32::MAX);
    let rest = world.store.messages(&scope, &filter, &rest).await.unwrap();
    assert_eq!((rest.rows.len(), rest.next), (5, None));
    let none = world
        .store
        .messages(&scope, &filter, &PageRequest::first(0))
        .await
        .unwrap();
    assert_eq!(none.rows.len(), 1);
}
