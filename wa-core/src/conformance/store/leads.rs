//! Leads: identity, triggers that merge, filters that match exactly.

use super::world::{World, assert_kind, insert_lead};
use crate::domain::access::RequestScope;
use crate::domain::audience::TargetFilter;
use crate::domain::lead::{Lead, TargetStatus};
use crate::domain::token::{Token, TokenSet};
use crate::id::{LeadId, UserId};
use crate::store::{Change, ChangeSet, LeadFilter, LeadInsert, OnDuplicate, PageRequest, StoreErrorKind};

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

fn tokens(text: &str) -> TokenSet {
    TokenSet::parse(text).unwrap()
}

fn merge(lead: &Lead) -> Change {
    Change::InsertLead {
        lead: Box::new(lead.clone()),
        on_duplicate: OnDuplicate::MergeTriggers,
    }
}

fn update(lead: &Lead) -> Change {
    Change::UpdateLead(Box::new(lead.clone()))
}

async fn shown(world: &World, user: UserId, filter: &LeadFilter) -> Vec<LeadId> {
    let scope = RequestScope::user(user);
    let page = world
        .store
        .leads(&scope, filter, &PageRequest::first(100))
        .await
        .unwrap();
    let count = world.store.lead_count(&scope, filter).await.unwrap();
    assert_eq!(
        count,
        page.rows.len() as u64,
        "the count is what the list shows for {filter:?}"
    );
    page.rows.iter().map(|lead| lead.id).collect()
}

pub(super) async fn the_same_identity_is_refused_when_asked_so(world: World) {
    let user = world.user().await;
    let device = world.device(user).await;
    let lead = world.lead(user, Some(device)).await;
    let twin = Lead {
        phone: lead.phone,
        ..world.rows.lead(user, Some(device))
    };
    world.refused(insert_lead(&twin), StoreErrorKind::Conflict).await;
}

pub(super) async fn the_same_identity_without_a_device_is_a_duplicate_too(world: World) {
    let user = world.user().await;
    let lead = world.lead(user, None).await;
    let twin = Lead {
        phone: lead.phone,
        ..world.rows.lead(user, None)
    };
    world.refused(insert_lead(&twin), StoreErrorKind::Conflict).await;
    let done = world.commit(merge(&twin)).await;
    let expected = LeadInsert::Duplicate {
        existing: lead.id,
        merged: false,
    };
    assert_eq!(done.leads, [expected]);
}

pub(super) async fn another_device_number_niche_or_user_makes_another_lead(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let (one, two) = (world.device(user).await, world.device(user).await);
    let lead = world.lead(user, Some(one)).await;
    let same = |of: Lead| Lead {
        phone: lead.phone,
        ..of
    };
    world.insert_lead(&same(world.rows.lead(user, Some(two)))).await;
    world.insert_lead(&same(world.rows.lead(user, None))).await;
    world.insert_lead(&same(world.rows.lead(other, None))).await;
    let mut niche = same(world.rows.lead(user, Some(one)));
    niche.niches = tokens("exa");
    world.insert_lead(&niche).await;
    assert_eq!(shown(&world, user, &LeadFilter::default()).await.len(), 4);
}

pub(super) async fn merging_adds_the_triggers_that_the_existing_lead_lacks(world: World) {
    let user = world.user().await;
    let mut lead = world.rows.lead(user, None);
    lead.triggers = tokens("a");
    world.insert_lead(&lead).await;
    let twin = Lead {
        phone: lead.phone,
        name: "Another name".to_owned(),
        triggers: tokens("a, b"),
        ..world.rows.lead(user, None)
    };
    let duplicate = |merged| LeadInsert::Duplicate {
        existing: lead.id,
        merged,
    };
    assert_eq!(
        world.commit_at(merge(&twin), world.at(1)).await.leads,
        [duplicate(true)]
    );
    let kept = world.lead_of(user, lead.id).await;
    assert_eq!(kept.triggers, tokens("a,b"));
    assert_eq!(kept.name, lead.name, "nothing but triggers is taken over");
    assert_eq!(
        kept.version,
        lead.version + 1,
        "it changed, so an update of the older version must fail"
    );
    assert_eq!(
        world.commit_at(merge(&twin), world.at(2)).await.leads,
        [duplicate(false)]
    );
    assert_eq!(world.lead_of(user, lead.id).await, kept, "nothing new, nothing changed");
}

pub(super) async fn every_insert_is_answered_in_order(world: World) {
    let user = world.user().await;
    let (first, second) = (world.rows.lead(user, None), world.rows.lead(user, None));
    let again = Lead {
        phone: first.phone,
        ..world.rows.lead(user, None)
    };
    let set = ChangeSet::one(merge(&first)).and(merge(&again)).and(merge(&second));
    let expected = [
        LeadInsert::Inserted(first.id),
        LeadInsert::Duplicate {
            existing: first.id,
            merged: false,
        },
        LeadInsert::Inserted(second.id),
    ];
    assert_eq!(world.commit(set).await.leads, expected);
}

pub(super) async fn an_update_writes_every_field_and_the_next_version(world: World) {
    let user = world.user().await;
    let device = world.device(user).await;
    let plain = world.lead(user, None).await;
    let mut rich = Lead {
        id: plain.id,
        created_at: plain.created_at,
        version: plain.version,
        ..world.rows.rich_lead(user, Some(device))
    };
    world.commit_at(update(&rich), rich.updated_at).await;
    rich.version += 1;
    assert_eq!(world.lead_of(user, rich.id).await, rich);
}

pub(super) async fn an_update_of_an_older_version_is_refused(world: World) {
    let user = world.user().await;
    let mut lead = world.lead(user, None).await;
    world.commit(update(&lead)).await;
    lead.name = "Late".to_owned();
    world.refused(update(&lead), StoreErrorKind::Conflict).await;
    assert_ne!(world.lead_of(user, lead.id).await.name, "Late");
}

pub(super) async fn an_update_to_an_identity_that_exists_is_refused(world: World) {
    let user = world.user().await;
    let first = world.lead(user, None).await;
    let mut second = world.lead(user, None).await;
    second.phone = first.phone;
    world.refused(update(&second), StoreErrorKind::Conflict).await;
}

pub(super) async fn a_deleted_lead_is_gone_and_its_identity_is_free(world: World) {
    let user = world.user().await;
    let lead = world.lead(user, None).await;
    let delete = Change::DeleteLead {
        user_id: user,
        lead_id: lead.id,
    };
    world.commit(delete).await;
    let scope = RequestScope::user(user);
    assert_kind(world.store.lead(&scope, lead.id).await, StoreErrorKind::NotFound);
    assert_eq!(world.store.lead_by_identity(&lead.identity()).await.unwrap(), None);
    let next = Lead {
        phone: lead.phone,
        ..world.rows.lead(user, None)
    };
    world.insert_lead(&next).await;
}

pub(super) async fn a_deleted_lead_leaves_its_messages(world: World) {
    let stage = world.stage().await;
    let lead = world.lead(stage.user, Some(stage.device)).await;
    let mut message = stage.message_to(lead.phone);
    message.lead_id = Some(lead.id);
    let id = world.insert(message).await;
    world
        .commit(Change::DeleteLead {
            user_id: stage.user,
            lead_id: lead.id,
        })
        .await;
    assert_eq!(
        stage.row(id).await.lead_id,
        Some(lead.id),
        "so that the engine sees that its lead is gone"
    );
}

pub(super) async fn a_niche_trigger_or_tag_matches_exactly(world: World) {
    let user = world.user().await;
    let with = |text: &str| {
        let mut lead = world.rows.lead(user, None);
        lead.niches = tokens(text);
        lead.triggers = tokens(text);
        lead.tags = tokens(text);
        lead
    };
    let (exa, exama, both) = (with("EXA"), with("EXAMA"), with("emas, exa"));
    for lead in [&exa, &exama, &both, &with("e_a"), &with("")] {
        world.insert_lead(lead).await;
    }
    let expected = [exa.id, both.id];
    let by = LeadFilter::default;
    let niche = LeadFilter {
        niche: Some(token("exa")),
        ..by()
    };
    assert_eq!(shown(&world, user, &niche).await, expected);
    let trigger = LeadFilter {
        trigger: Some(token("exa")),
        ..by()
    };
    assert_eq!(shown(&world, user, &trigger).await, expected);
    let tag = LeadFilter {
        tag: Some(token("exa")),
        ..by()
    };
    assert_eq!(shown(&world, user, &tag).await, expected);
}

pub(super) async fn all_conditions_of_a_filter_must_hold(world: World) {
    let user = world.user().await;
    let (one, two) = (world.device(user).await, world.device(user).await);
    let mut customer = world.rows.lead(user, Some(one));
    customer.target_status = TargetStatus::Customer;
    let (prospect, elsewhere, pool) = (
        world.rows.lead(user, Some(one)),
        world.rows.lead(user, Some(two)),
        world.rows.lead(user, None),
    );
    for lead in [&customer, &prospect, &elsewhere, &pool] {
        world.insert_lead(lead).await;
    }
    let by = LeadFilter::default;
    let device = LeadFilter {
        device_id: Some(one),
        ..by()
    };
    assert_eq!(shown(&world, user, &device).await, [customer.id, prospect.id]);
    let target = LeadFilter {
        target: TargetFilter::Prospect,
        ..device
    };
    assert_eq!(shown(&world, user, &target).await, [prospect.id]);
    let free = LeadFilter {
        without_device: true,
        ..by()
    };
    assert_eq!(shown(&world, user, &free).await, [pool.id]);
    let phone = LeadFilter {
        phone: Some(elsewhere.phone),
        ..by()
    };
    assert_eq!(shown(&world, user, &phone).await, [elsewhere.id]);
    let nobody = LeadFilter {
        phone: Some(elsewhere.phone),
        ..target
    };
    assert!(shown(&world, user, &nobody).await.is_empty());
}

pub(super) async fn a_search_folds_case_and_takes_wildcards_as_they_are_written(world: World) {
    let user = world.user().await;
    let named = |name: &str| Lead {
        name: name.to_owned(),
        ..world.rows.lead(user, None)
    };
    let (ali, percent, other) = (named("Encik ALI bin Abu"), named("100% _ok_ \\o/"), named("Siti"));
    for lead in [&ali, &percent, &other] {
        world.insert_lead(lead).await;
    }
    for (text, expected) in [
        ("ali BIN", vec![ali.id]),
        ("%", vec![percent.id]),
        ("_", vec![percent.id]),
        ("\\", vec![percent.id]),
        ("a%u", vec![]),
        ("'", vec![]),
        (other.phone.digits(), vec![other.id]),
    ] {
        let filter = LeadFilter {
            search: Some(text.to_owned()),
            ..LeadFilter::default()
        };
        assert_eq!(shown(&world, user, &filter).await, expected, "{text:?}");
    }
}

pub(super) async fn leads_are_found_by_id_and_by_identity_within_their_user(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let (mine, theirs) = (world.lead(user, None).await, world.lead(other, None).await);
    let missing = LeadId::new(world.rows.ids(), world.now());
    let ids = [theirs.id, mine.id, missing];
    assert_eq!(
        world.store.leads_by_id(user, &ids).await.unwrap(),
        std::slice::from_ref(&mine)
    );
    let found = world.store.lead_by_identity(&mine.identity()).await.unwrap();
    assert_eq!(found, Some(mine.clone()));
    let mut identity = mine.identity();
    identity.user_id = other;
    assert_eq!(world.store.lead_by_identity(&identity).await.unwrap(), None);
}

pub(super) async fn niches_are_counted_per_lead_and_sorted(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    for (owner, niches) in [(user, "b, a"), (user, "b"), (user, ""), (other, "c")] {
        let mut lead = world.rows.lead(owner, None);
        lead.niches = tokens(niches);
        world.insert_lead(&lead).await;
    }
    let niches = world.store.niches(&RequestScope::user(user)).await.unwrap();
    assert_eq!(niches, [(token("a"), 1), (token("b"), 2)]);
}

pub(super) async fn a_word_keeps_its_spelling_and_is_found_by_any(world: World) {
    let user = world.user().await;
    let mut lead = world.rows.lead(user, None);
    (lead.niches, lead.triggers, lead.tags) = (tokens("EXA"), tokens("Promo"), tokens("VIP"));
    world.insert_lead(&lead).await;
    let twin = Lead {
        phone: lead.phone,
        niches: tokens("exa"),
        triggers: tokens("PROMO, New"),
        ..world.rows.lead(user, None)
    };
    let merged = LeadInsert::Duplicate {
        existing: lead.id,
        merged: true,
    };
    assert_eq!(world.commit(merge(&twin)).await.leads, [merged]);
    let spelled = async |niche: &str, triggers: &str| {
        let read = world.lead_of(user, lead.id).await;
        let words = [&read.niches, &read.triggers, &read.tags].map(ToString::to_string);
        assert_eq!(words, [niche, triggers, "VIP"]);
        for text in ["exa", "Exa"] {
            let filter = LeadFilter {
                niche: Some(token(text)),
                trigger: Some(token("promo")),
                tag: Some(token("vip")),
                ..LeadFilter::default()
            };
            assert_eq!(shown(&world, user, &filter).await, [lead.id]);
        }
    };
    spelled("EXA", "New,Promo").await;
    let mut edited = world.lead_of(user, lead.id).await;
    (edited.niches, edited.triggers) = (tokens("Exa"), tokens("promo"));
    world.commit(update(&edited)).await;
    spelled("Exa", "promo").await;
    let niches = world.store.niches(&RequestScope::user(user)).await.unwrap();
    assert_eq!(niches[0].0.spelling(), "Exa", "a new spelling is a change");
}

pub(super) async fn niches_are_listed_in_the_spelling_of_the_oldest_lead(world: World) {
    let user = world.user().await;
    let device = world.device(user).await;
    let mut leads = [None, Some(device), Some(device)].map(|device| world.rows.lead(user, device));
    assert!(leads.is_sorted_by_key(|lead| lead.id));
    for (lead, niches) in leads.iter_mut().zip(["exa, Other", "EXA", "other"]).rev() {
        lead.niches = tokens(niches);
        world.insert_lead(lead).await;
    }
    let limited = RequestScope {
        user_id: user,
        devices: Some(vec![device]),
    };
    for (scope, expected) in [
        (RequestScope::user(user), ["exa", "Other"]),
        (limited, ["EXA", "other"]),
    ] {
        let niches = world.store.niches(&scope).await.unwrap();
        let niches: Vec<_> = niches.iter().map(|(niche, _)| niche.spelling()).collect();
        assert_eq!(niches, expected);
    }
}

pub(super) async fn an_edit_does_not_set_the_last_interaction_back(world: World) {
    let user = world.user().await;
    let mut lead = world.rows.lead(user, None);
    lead.last_interaction_at = Some(world.at(50));
    world.insert_lead(&lead).await;
    lead.last_interaction_at = Some(world.at(20));
    world.commit(update(&lead)).await;
    assert_eq!(
        world.lead_of(user, lead.id).await.last_interaction_at,
        Some(world.at(50))
    );
}
