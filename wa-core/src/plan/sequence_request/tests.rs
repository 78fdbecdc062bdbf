use super::*;
use crate::domain::sequence::Step;
use crate::plan::FieldCode::{Invalid, NotAllowed, NotFound, OutOfRange, Required, TooLong, TooMany, Unknown};
use crate::plan::MediaDraft;

const NOW: Timestamp = Timestamp::from_millis(1_795_222_800_000);

fn step(message: &str) -> StepDraft {
    StepDraft {
        message: Some(message.to_owned()),
        ..StepDraft::default()
    }
}

fn entry(trigger: &str) -> StepDraft {
    StepDraft {
        trigger: Some(trigger.to_owned()),
        ..step("Hi {{name}}")
    }
}

fn draft(steps: Vec<StepDraft>) -> SequenceDraft {
    SequenceDraft {
        name: Some("Fitness".to_owned()),
        steps: Some(steps),
        ..SequenceDraft::default()
    }
}

fn with_context<T>(wait_min: Duration, read: impl FnOnce(SequenceContext<'_>) -> T) -> T {
    let (settings, ids) = (UserSettings::default(), IdSource::from_entropy());
    read(SequenceContext {
        settings: &settings,
        ids: &ids,
        wait_min,
        now: NOW,
    })
}

fn read(draft: &SequenceDraft) -> (WithSteps, Vec<(String, FieldCode)>) {
    let read = |context: SequenceContext<'_>| new_sequence(draft, SequenceId::MIN, UserId::MIN, context);
    let (with_steps, problems) = with_context(Step::WAIT_MIN, read);
    (with_steps, codes(problems))
}

fn codes(problems: Problems) -> Vec<(String, FieldCode)> {
    let errors = problems.into_errors().into_iter();
    errors.map(|error| (error.field.into_owned(), error.code)).collect()
}

fn wrong(steps: Vec<StepDraft>) -> Vec<(String, FieldCode)> {
    read(&draft(steps)).1
}

fn one(field: &str, code: FieldCode) -> Vec<(String, FieldCode)> {
    vec![(field.to_owned(), code)]
}

fn saved(steps: Vec<StepDraft>) -> (Sequence, SequenceSteps) {
    let ((sequence, steps), problems) = read(&draft(steps));
    assert_eq!(problems, []);
    (sequence, steps.unwrap())
}

fn edited(
    before: (&Sequence, &SequenceSteps),
    draft: &SequenceDraft,
) -> (Option<SequenceSteps>, Vec<(String, FieldCode)>) {
    let read = |context: SequenceContext<'_>| edited_sequence(draft, (before.0, Some(before.1)), context);
    let ((_, steps), problems) = with_context(Step::WAIT_MIN, read);
    (steps, codes(problems))
}

fn names(steps: &SequenceSteps) -> Vec<&str> {
    steps.steps.iter().map(|step| step.trigger.as_str()).collect()
}

#[test]
fn later_days_are_named_after_the_stem_of_the_entry_trigger() {
    let (sequence, steps) = saved(vec![entry("fitness_start"), step("2"), step("3")]);
    assert_eq!((sequence.steps_version, steps.version), (1, 1));
    assert_eq!(names(&steps), ["fitness_start", "fitness_day2", "fitness_day3"]);
    let days: Vec<_> = steps.steps.iter().map(|step| (step.day, step.entry_point)).collect();
    assert_eq!(days, [(1, true), (2, false), (3, false)]);
    let entries: Vec<_> = steps.entry_points().map(|(token, _)| token.as_str()).collect();
    assert_eq!(entries, ["fitness_start"]);
    let (_, steps) = saved(vec![entry("Promo"), step("2")]);
    assert_eq!(names(&steps), ["promo", "promo_day2"]);
    let (_, steps) = saved(vec![entry("slim-day1"), step("2")]);
    assert_eq!(names(&steps), ["slim-day1", "slim-day2"]);
    let (_, steps) = saved(vec![entry("Fitness_START"), step("2")]);
    assert_eq!(steps.steps[1].trigger.spelling(), "Fitness_day2");
}

#[test]
fn names_follow_the_days_and_never_clash() {
    let weekly = StepDraft {
        wait_secs: Some(7 * 86_400),
        ..entry("a_start")
    };
    let (_, steps) = saved(vec![weekly, step("2")]);
    assert_eq!(names(&steps), ["a_start", "a_day8"]);
    let same_day = || StepDraft {
        day: Some(1),
        ..step("again")
    };
    let (_, steps) = saved(vec![
        entry("a_start"),
        same_day(),
        same_day(),
        entry("a_day4"),
        step("x"),
    ]);
    assert_eq!(names(&steps), ["a_start", "a_day1", "a_day1_2", "a_day4", "a_day3"]);
    let long = "x".repeat(64);
    let (_, steps) = saved(vec![entry(&long), step("2")]);
    assert_eq!(steps.steps[1].trigger.as_str(), format!("{}_day2", "x".repeat(59)));
}

#[test]
fn triggers_must_lead_in_and_differ() {
    let closed = StepDraft {
        entry_point: Some(false),
        ..entry("a")
    };
    assert_eq!(wrong(vec![closed]), one("steps", Required));
    assert_eq!(wrong(vec![step("Hi")]), one("steps[0].trigger", Required));
    assert_eq!(
        wrong(vec![entry("a"), entry("b"), entry(" A ")]),
        one("steps[2].trigger", NotAllowed)
    );
    assert_eq!(wrong(vec![entry("a,b")]), one("steps[0].trigger", Invalid));
}

#[test]
fn a_next_trigger_is_for_the_last_step_and_leads_elsewhere() {
    let chained = |trigger: &str, next: &str| StepDraft {
        next_trigger: Some(next.to_owned()),
        ..entry(trigger)
    };
    let (_, steps) = saved(vec![chained("a", "b"), chained("b", "C")]);
    let next: Vec<_> = steps
        .steps
        .iter()
        .map(|step| step.next_trigger.as_ref().map(Token::as_str))
        .collect();
    assert_eq!(next, [None, Some("c")], "between steps it is the step that follows");
    assert_eq!(
        wrong(vec![chained("a", "c"), entry("b")]),
        one("steps[0].next_trigger", NotAllowed)
    );
    assert_eq!(
        wrong(vec![entry("a"), chained("b", "a")]),
        one("steps[1].next_trigger", NotAllowed)
    );
}

#[test]
fn waits_lie_between_an_hour_and_a_year_unless_configured() {
    let waiting = |secs| StepDraft {
        wait_secs: Some(secs),
        ..entry("a")
    };
    for secs in [-1, 0, 3_599, 52 * 7 * 86_400 + 1, i64::MAX, i64::MIN] {
        assert_eq!(
            wrong(vec![waiting(secs)]),
            one("steps[0].delay_hours", OutOfRange),
            "{secs}"
        );
    }
    for secs in [3_600, 52 * 7 * 86_400] {
        assert_eq!(wrong(vec![waiting(secs)]), [], "{secs}");
    }
    let quick = draft(vec![waiting(5)]);
    let read = |context: SequenceContext<'_>| new_sequence(&quick, SequenceId::MIN, UserId::MIN, context);
    let ((_, steps), problems) = with_context(Duration::from_secs(5), read);
    assert!(problems.is_empty());
    assert_eq!(steps.unwrap().steps[0].wait, Duration::from_secs(5));
    let (_, steps) = saved(vec![entry("a")]);
    assert_eq!(steps.steps[0].wait, Duration::from_secs(24 * 3_600));
    let message = |wait_min| {
        let late = draft(vec![waiting(1)]);
        let read = |context: SequenceContext<'_>| new_sequence(&late, SequenceId::MIN, UserId::MIN, context);
        with_context(wait_min, read).1.into_errors()[0].to_string()
    };
    assert_eq!(
        message(Step::WAIT_MIN),
        "steps[0].delay_hours must be 1 hour to 52 weeks"
    );
    assert_eq!(
        message(Duration::from_secs(90)),
        "steps[0].delay_hours must be 90 seconds to 52 weeks"
    );
}

#[test]
fn days_never_fall_and_stay_in_range() {
    let on = |day| StepDraft {
        day: Some(day),
        ..step("x")
    };
    let first = || StepDraft {
        day: Some(5),
        ..entry("a")
    };
    assert_eq!(wrong(vec![first(), on(5), on(31)]), []);
    assert_eq!(wrong(vec![first(), on(4)]), one("steps[1].day", OutOfRange));
    for day in [0, -3, 3_651, 70_000] {
        let bad = StepDraft {
            day: Some(day),
            ..entry("a")
        };
        assert_eq!(wrong(vec![bad]), one("steps[0].day", OutOfRange), "{day}");
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_by_field() {
    let bad = StepDraft {
        trigger: Some("b".repeat(65)),
        message: Some("Hi {{nmae}}".to_owned()),
        media: Some(MediaDraft::url("ftp://x.test/a.png")),
        send_time: Some("25:00".to_owned()),
        delay: Some(DelayDraft {
            min: Some(Duration::from_secs(20)),
            max: Some(Duration::from_secs(10)),
        }),
        ..StepDraft::default()
    };
    let sequence = SequenceDraft {
        name: None,
        late_policy: Some("ask".to_owned()),
        send_time: Some("noon".to_owned()),
        on_failure: Some("retry".to_owned()),
        re_entry: Some("often".to_owned()),
        ..draft(vec![entry("a"), bad])
    };
    let (_, problems) = read(&sequence);
    let expected = [
        ("name", Required),
        ("send_time", Invalid),
        ("late_policy", Unknown),
        ("on_failure", Unknown),
        ("re_entry", Unknown),
        ("steps[1].trigger", Invalid),
        ("steps[1].media", Invalid),
        ("steps[1].message", Unknown),
        ("steps[1].send_time", Invalid),
        ("steps[1].min_delay", OutOfRange),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(field, code)| (field.to_owned(), code))
        .collect();
    assert_eq!(problems, expected);
}

#[test]
fn steps_are_bounded() {
    let many = |count: usize| {
        std::iter::once(entry("a_start"))
            .chain((1..count).map(|_| step("x")))
            .collect()
    };
    assert_eq!(wrong(many(SequenceSteps::COUNT_MAX)), []);
    assert_eq!(wrong(many(SequenceSteps::COUNT_MAX + 1)), one("steps", TooMany));
    assert_eq!(
        wrong(vec![entry(&"x".repeat(65_537))]),
        one("steps[0].trigger", Invalid)
    );
    assert_eq!(
        wrong(vec![StepDraft {
            message: Some("a".repeat(65_537)),
            ..entry("a")
        }]),
        one("steps[0].message", TooLong)
    );
}

#[test]
fn a_sequence_may_be_kept_without_steps_and_texts_but_not_run() {
    let ((sequence, steps), problems) = read(&draft(Vec::new()));
    assert_eq!((sequence.steps_version, steps.is_none(), problems.len()), (0, true, 0));
    assert_eq!(unready(None)[0].field, "steps");
    let (_, steps) = saved(vec![entry("a"), step(" ")]);
    assert_eq!(unready(Some(&steps))[0].field, "steps[1].message");
}

#[test]
fn an_edit_keeps_the_ids_of_steps_that_stay_and_makes_a_version_only_for_a_change() {
    let (sequence, steps) = saved(vec![entry("a_start"), step("2"), step("3")]);
    let same = SequenceDraft::of(&sequence, Some(&steps));
    let before = (&sequence, &steps);
    assert_eq!(
        edited(before, &same),
        (None, Vec::new()),
        "what was read changes nothing"
    );
    let renamed = SequenceDraft {
        steps: None,
        ..same.clone()
    };
    assert_eq!(edited(before, &renamed), (None, Vec::new()));
    let mut fewer = same.clone();
    let list = fewer.steps.as_mut().unwrap();
    list.remove(1);
    list.push(step("new"));
    let (next, problems) = edited(before, &fewer);
    let next = next.unwrap();
    assert_eq!((next.version, problems), (2, Vec::new()));
    assert_eq!(
        (next.steps[0].id, next.steps[1].id),
        (steps.steps[0].id, steps.steps[2].id)
    );
    assert!(steps.step(next.steps[2].id).is_none());
    assert_eq!(names(&next), ["a_start", "a_day3", "a_day4"]);
    let none = SequenceDraft {
        steps: Some(Vec::new()),
        ..same
    };
    assert_eq!(edited(before, &none).1, one("steps", Required));
}

#[test]
fn an_edit_names_only_its_own_steps_each_once_and_keeps_their_order_once_started() {
    let (mut sequence, steps) = saved(vec![entry("a_start"), step("2")]);
    let mut changed = SequenceDraft::of(&sequence, Some(&steps));
    let list = changed.steps.as_mut().unwrap();
    list[1].id = Some(StepDraft::from(&steps.steps[0]).id.unwrap());
    assert_eq!(edited((&sequence, &steps), &changed).1, one("steps[1].id", NotAllowed));
    changed.steps.as_mut().unwrap()[1].id = Some(crate::id::StepId::MIN);
    assert_eq!(edited((&sequence, &steps), &changed).1, one("steps[1].id", NotFound));

    let mut turned = SequenceDraft::of(&sequence, Some(&steps));
    let list = turned.steps.as_mut().unwrap();
    list.reverse();
    list.iter_mut().for_each(|step| step.day = None);
    assert_eq!(edited((&sequence, &steps), &turned).1, []);
    sequence.started_at = Some(NOW);
    sequence.status = SequenceStatus::Active;
    assert_eq!(edited((&sequence, &steps), &turned).1, one("steps[1].id", NotAllowed));
}

#[test]
fn a_sequence_that_ran_is_not_left_without_a_text() {
    let (mut sequence, steps) = saved(vec![entry("a")]);
    let mut emptied = SequenceDraft::of(&sequence, Some(&steps));
    emptied.steps.as_mut().unwrap()[0].message = None;
    assert_eq!(edited((&sequence, &steps), &emptied).1, []);
    sequence.status = SequenceStatus::Paused;
    assert_eq!(
        edited((&sequence, &steps), &emptied).1,
        one("steps[0].message", Required)
    );
}
