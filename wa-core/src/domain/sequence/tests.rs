use proptest::prelude::*;

use super::*;
use crate::domain::content::Content;
use crate::domain::lead::TargetStatus;
use crate::domain::phone::Phone;
use crate::domain::token::TokenSet;

fn id(n: u8) -> StepId {
    StepId::from_uuid(uuid::Uuid::from_u128(u128::from(n) + 1))
}

/// Steps of these numbers, in this order.
fn steps(version: i32, numbers: &[u8]) -> SequenceSteps {
    let step = |n: &u8| Step {
        id: id(*n),
        day: 1,
        trigger: Token::parse(&format!("STEP{n}")).unwrap(),
        next_trigger: None,
        entry_point: false,
        wait: Step::WAIT,
        content: Content::text("Hi"),
        send_time: None,
        delay: None,
    };
    SequenceSteps {
        sequence_id: SequenceId::MIN,
        version,
        steps: numbers.iter().map(step).collect(),
    }
}

/// What an enrolment at `at` gets that has had `passed`: removed, added, remaining.
fn moved(from: &[u8], at: u8, to: &[u8], passed: &[u8]) -> (Vec<StepId>, Vec<StepId>, Vec<StepId>) {
    let passed = passed.iter().map(|n| id(*n)).collect();
    let one = step_move(&steps(1, from), id(at), &steps(2, to), &passed);
    (one.removed, one.added, one.remaining)
}

fn ids<const A: usize, const B: usize, const C: usize>(
    removed: [u8; A],
    added: [u8; B],
    remaining: [u8; C],
) -> (Vec<StepId>, Vec<StepId>, Vec<StepId>) {
    (
        removed.map(id).to_vec(),
        added.map(id).to_vec(),
        remaining.map(id).to_vec(),
    )
}

#[test]
fn without_an_edit_the_steps_after_the_present_one_follow() {
    assert_eq!(moved(&[0, 1, 2, 3], 1, &[0, 1, 2, 3], &[0, 1]), ids([], [], [2, 3]));
    assert_eq!(moved(&[0, 1], 1, &[0, 1], &[0, 1]), ids([], [], []));
}

#[test]
fn a_step_that_is_not_reached_is_removed_and_a_new_one_joins() {
    assert_eq!(moved(&[0, 1, 2, 3], 1, &[0, 1, 3], &[0, 1]), ids([2], [], [3]));
    assert_eq!(
        moved(&[0, 1, 2], 1, &[0, 1, 9, 2, 8], &[0, 1]),
        ids([], [9, 8], [9, 2, 8])
    );
    assert_eq!(
        moved(&[0, 1], 1, &[9, 0, 1], &[0, 1]),
        ids([], [], []),
        "what comes before is past"
    );
}

#[test]
fn where_the_present_step_was_removed_it_goes_on_after_the_one_before_it() {
    assert_eq!(moved(&[0, 1, 2, 3], 2, &[0, 1, 9, 3], &[0, 1, 2]), ids([], [9], [9, 3]));
    assert_eq!(moved(&[0, 1, 2], 1, &[2], &[0, 1]), ids([], [], [2]));
    assert_eq!(
        moved(&[0, 1, 2], 1, &[9, 2], &[0, 1]),
        ids([], [9], [9, 2]),
        "with none before it left, from the start"
    );
    assert_eq!(moved(&[0, 1, 2], 1, &[], &[0, 1]), ids([2], [], []));
}

#[test]
fn reordered_steps_come_in_the_new_order_and_none_comes_twice() {
    assert_eq!(moved(&[0, 1, 2, 3], 0, &[0, 3, 2, 1], &[0]), ids([], [], [3, 2, 1]));
    assert_eq!(moved(&[0, 1, 2, 3], 2, &[2, 0, 1, 3], &[0, 1, 2]), ids([], [], [3]));
    assert_eq!(
        moved(&[0, 1, 2], 1, &[0, 2, 1], &[0, 1]),
        ids([2], [], []),
        "what was moved before the present step is past, and said to be removed"
    );
}

#[test]
fn one_that_entered_later_gets_an_earlier_step_only_if_it_was_moved_behind() {
    assert_eq!(moved(&[0, 1, 2], 1, &[0, 1, 2], &[1]), ids([], [], [2]));
    assert_eq!(moved(&[0, 1, 2], 1, &[1, 0, 2], &[1]), ids([], [0], [0, 2]));
}

proptest! {
    #[test]
    fn nothing_comes_twice_and_every_step_is_accounted_for(
        from in Just((0u8..8).collect::<Vec<_>>()).prop_shuffle(),
        to in prop::sample::subsequence((0u8..12).collect::<Vec<_>>(), 0..12).prop_shuffle(),
        at in 0usize..8,
        entered in 0usize..8,
    ) {
        let passed: BTreeSet<StepId> = from[entered.min(at)..=at].iter().map(|n| id(*n)).collect();
        let (old, new) = (steps(1, &from), steps(2, &to));
        let one = step_move(&old, id(from[at]), &new, &passed);
        let remaining: BTreeSet<StepId> = one.remaining.iter().copied().collect();
        prop_assert_eq!(remaining.len(), one.remaining.len(), "none is listed twice");
        prop_assert!(remaining.is_disjoint(&passed), "none comes twice");
        prop_assert!(one.remaining.iter().map(|id| new.position(*id)).is_sorted(), "in the new order");
        prop_assert!(remaining.iter().all(|id| new.step(*id).is_some()));
        let listed: BTreeSet<StepId> = old.after(id(from[at])).iter().map(|step| step.id).collect();
        let kept = listed.iter().filter(|id| remaining.contains(*id)).count();
        prop_assert_eq!(kept + one.removed.len(), listed.len(), "every listed step comes or is said to be removed");
        prop_assert_eq!(kept + one.added.len(), remaining.len(), "what comes was listed or is said to be added");
        prop_assert!(one.removed.iter().all(|id| listed.contains(id) && !remaining.contains(id)));
    }

    #[test]
    fn an_edit_that_changes_no_order_changes_nothing(count in 1u8..10, at in 0u8..10) {
        let at = at.min(count - 1);
        let numbers: Vec<u8> = (0..count).collect();
        let passed = (0..=at).map(id).collect();
        let one = step_move(&steps(1, &numbers), id(at), &steps(2, &numbers), &passed);
        prop_assert_eq!(one.removed, []);
        prop_assert_eq!(one.added, []);
        prop_assert_eq!(one.remaining, (at + 1..count).map(id).collect::<Vec<_>>());
    }
}

fn lead(triggers: &str, niches: &str) -> Lead {
    let phone = Phone::from_e164("+60123456789").unwrap();
    let mut lead = Lead::new(LeadId::MIN, UserId::MIN, None, phone, Timestamp::EPOCH);
    lead.triggers = TokenSet::parse(triggers).unwrap();
    lead.niches = TokenSet::parse(niches).unwrap();
    lead
}

#[test]
fn a_lead_enters_at_the_first_entry_point_whose_trigger_it_has_else_by_its_niche() {
    let mut sequence = Sequence::draft(SequenceId::MIN, UserId::MIN, "a", Timestamp::EPOCH);
    sequence.niche = Token::parse("EXAMA").ok();
    let mut with_entries = steps(1, &[0, 1, 2]);
    with_entries.steps[1].entry_point = true;
    with_entries.steps[2].entry_point = true;
    let entry = |lead: &Lead| {
        let (step, token) = sequence.entry_for(lead, &with_entries)?;
        Some((step, token.map(|token| token.as_str().to_lowercase())))
    };
    let by = |n: u8| Some((id(n), Some(format!("step{n}"))));
    assert_eq!(
        entry(&lead("STEP2, STEP1", "")),
        by(1),
        "the order of the steps decides"
    );
    assert_eq!(entry(&lead("STEP2", "EXAMA")), by(2), "a trigger before the niche");
    assert_eq!(entry(&lead("OTHER", "EXAMA")), Some((id(1), None)));
    for nobody in [
        lead("STEP0", ""),
        lead("STEP11", ""),
        lead("STEP", ""),
        lead("", "EXAMAX"),
    ] {
        assert_eq!(entry(&nobody), None);
    }
    let mut stranger = lead("STEP1", "EXAMA");
    stranger.user_id = UserId::from_uuid(uuid::Uuid::max());
    assert_eq!(entry(&stranger), None);
}

#[test]
fn the_target_of_a_sequence_leaves_others_out() {
    let mut sequence = Sequence::draft(SequenceId::MIN, UserId::MIN, "a", Timestamp::EPOCH);
    sequence.target = TargetFilter::Customer;
    let mut with_entry = steps(1, &[0]);
    with_entry.steps[0].entry_point = true;
    let mut lead = lead("STEP0", "");
    assert_eq!(sequence.entry_for(&lead, &with_entry), None);
    lead.target_status = TargetStatus::Customer;
    assert!(sequence.entry_for(&lead, &with_entry).is_some());
}

#[test]
fn only_the_transitions_of_the_table_are_allowed() {
    use SequenceStatus::*;
    let allowed: &[(SequenceStatus, &[SequenceStatus])] = &[
        (Draft, &[Active]),
        (Active, &[Paused, Inactive]),
        (Paused, &[Active, Inactive]),
        (Inactive, &[Active]),
    ];
    for (from, next) in allowed {
        for to in SequenceStatus::ALL {
            assert_eq!(from.can_become(to), next.contains(&to), "{from:?} -> {to:?}");
        }
    }
}
