use super::*;
use crate::domain::campaign::CampaignReason;
use crate::transport::Capabilities;

/// 2026-11-21T01:00:00Z, nine in the morning in Kuala Lumpur.
const NOW: Timestamp = Timestamp::from_millis(1_795_222_800_000);
const GRACE: Duration = Duration::from_secs(600);

fn draft() -> CampaignDraft {
    CampaignDraft {
        title: Some("Sale".to_owned()),
        message: Some("Hi {{name}}".to_owned()),
        date: Some("2026-11-21".to_owned()),
        time: Some("10:00".to_owned()),
        ..CampaignDraft::default()
    }
}

fn new(draft: &CampaignDraft) -> (Campaign, Vec<String>) {
    let settings = UserSettings::default();
    let (campaign, problems) = new_campaign(draft, CampaignId::MIN, UserId::MIN, &settings, NOW);
    (campaign, fields(problems.into_errors()))
}

fn fields(errors: Vec<FieldError>) -> Vec<String> {
    errors.into_iter().map(|error| error.field.into_owned()).collect()
}

fn edit(draft: &CampaignDraft, before: &Campaign) -> (Campaign, Vec<String>) {
    let (campaign, problems) = edited_campaign(draft, before, &UserSettings::default(), NOW, GRACE);
    (campaign, fields(problems.into_errors()))
}

#[test]
fn a_good_draft_is_a_campaign_with_its_local_time_as_an_instant() {
    let (campaign, fields) = new(&draft());
    assert_eq!(fields, [""; 0]);
    assert_eq!(campaign.scheduled_at, Some(NOW + Duration::from_secs(3_600)));
    assert_eq!(
        (campaign.status, campaign.content_version, campaign.version),
        (CampaignStatus::Draft, 1, 1)
    );
    assert!(campaign.dressing.greeting && campaign.dressing.randomizer.is_none());
    let copy = CampaignDraft::from(&campaign);
    let (again, fields) = edit(&copy, &campaign);
    assert_eq!(
        (again, fields.len()),
        (campaign, 0),
        "the draft of a campaign changes nothing"
    );
}

#[test]
fn all_problems_of_a_campaign_are_told_at_once() {
    let bad = CampaignDraft {
        title: Some(" ".to_owned()),
        message: Some("Hi {{nmae}}".to_owned()),
        media: Some(MediaDraft::url("ftp://x.test/a.png")),
        audience: Some("everybody".to_owned()),
        niche: Some("a,b".to_owned()),
        target_status: Some("lead".to_owned()),
        routing: Some("fastest".to_owned()),
        time_zone: Some("Asia/Atlantis".to_owned()),
        date: Some("21/11/2026".to_owned()),
        time: Some("9am".to_owned()),
        late_policy: Some("never".to_owned()),
        delay: Some(DelayDraft {
            min: Some(Duration::from_secs(20)),
            max: Some(Duration::from_secs(10)),
        }),
        quiet_hours: Some(QuietDraft {
            from: "25:00".to_owned(),
            until: "x".to_owned(),
        }),
        greeting_locale: Some("de".to_owned()),
        randomizer: Some(RandomizerDraft {
            on: true,
            letters_percent: Some(16),
            zero_width: Some(300),
        }),
        expires_after: Some(Duration::from_secs(1)),
        ..CampaignDraft::default()
    };
    let expected = [
        "title",
        "media",
        "message",
        "routing",
        "audience",
        "niche",
        "target_status",
        "time_zone",
        "date",
        "time",
        "late_policy",
        "min_delay",
        "quiet_from",
        "quiet_until",
        "greeting_locale",
        "randomizer.letters_percent",
        "randomizer.zero_width",
        "expires_after",
    ];
    assert_eq!(new(&bad).1, expected);
}

#[test]
fn quiet_hours_must_begin_and_end_at_different_times() {
    let mut quiet = draft();
    quiet.quiet_hours = Some(QuietDraft {
        from: "22:00".to_owned(),
        until: "22:00".to_owned(),
    });
    assert_eq!(new(&quiet).1, ["quiet_until"]);
}

#[test]
fn a_device_alone_sends_to_its_own_leads_and_goes_with_no_pool() {
    let mut single = draft();
    single.device_id = Some(DeviceId::MIN);
    let (campaign, _) = new(&single);
    assert!(matches!(
        campaign.audience,
        Audience::Leads {
            device_id: Some(DeviceId::MIN),
            ..
        }
    ));
    single.routing = Some("balanced".to_owned());
    assert_eq!(new(&single).1, ["routing"]);
}

#[test]
fn uploaded_entries_need_a_device_or_a_pool() {
    let mut entries = draft();
    entries.audience = Some("entries".to_owned());
    assert_eq!(new(&entries).1, ["device_id"]);
    entries.niche = Some("a".to_owned());
    entries.routing = Some("random".to_owned());
    assert_eq!(new(&entries).1, ["niche"]);
    entries.niche = None;
    assert_eq!(new(&entries).0.audience, Audience::Entries);
}

#[test]
fn the_randomizer_is_as_the_user_has_it_unless_the_campaign_says_otherwise() {
    let settings = UserSettings {
        randomizer: true,
        ..UserSettings::default()
    };
    let with = |randomizer| {
        let draft = CampaignDraft { randomizer, ..draft() };
        new_campaign(&draft, CampaignId::MIN, UserId::MIN, &settings, NOW)
            .0
            .dressing
            .randomizer
    };
    assert!(with(None).is_some());
    assert!(with(Some(RandomizerDraft::default())).is_none());
    let strong = RandomizerDraft {
        on: true,
        letters_percent: Some(15),
        zero_width: None,
    };
    assert_eq!(
        with(Some(strong)),
        RandomizerConfig::default().with_letters_percent(15).ok()
    );
}

#[test]
fn a_campaign_is_scheduled_only_whole_and_not_in_the_past() {
    let (campaign, _) = new(&draft());
    let waiting = scheduled(&campaign, NOW, GRACE).unwrap();
    assert_eq!(waiting.status, CampaignStatus::Scheduled);
    let just_late = NOW + Duration::from_secs(3_600) + GRACE;
    assert!(scheduled(&campaign, just_late, GRACE).is_ok());
    let errors = scheduled(&campaign, just_late + Duration::from_millis(1), GRACE).unwrap_err();
    assert_eq!((errors[0].field.as_ref(), errors[0].code), ("date", FieldCode::Past));
    let (bare, _) = new(&CampaignDraft {
        title: Some("t".to_owned()),
        ..CampaignDraft::default()
    });
    assert_eq!(
        fields(scheduled(&bare, NOW, GRACE).unwrap_err()),
        ["message", "date", "time"]
    );
}

#[test]
fn a_campaign_that_starts_now_is_due_now() {
    let (campaign, _) = new(&draft());
    let at = NOW + Duration::from_millis(90_001);
    let started = started_now(&campaign, at).unwrap();
    assert_eq!(
        (started.scheduled_at, started.status),
        (Some(at), CampaignStatus::Scheduled)
    );
    assert_eq!(started.time.map(|time| time.to_string()), Some("09:01".to_owned()));
    assert_eq!(started.date.map(|date| date.to_string()), Some("2026-11-21".to_owned()));
}

#[test]
fn only_another_text_or_dressing_makes_a_new_content_version() {
    let (campaign, _) = new(&draft());
    let version = |draft: &CampaignDraft| edit(draft, &campaign).0.content_version;
    assert_eq!(
        version(&CampaignDraft {
            title: Some("Other".to_owned()),
            ..draft()
        }),
        1
    );
    assert_eq!(
        version(&CampaignDraft {
            message: Some("Other".to_owned()),
            ..draft()
        }),
        2
    );
    assert_eq!(
        version(&CampaignDraft {
            greeting: Some(false),
            ..draft()
        }),
        2
    );
}

#[test]
fn a_paused_campaign_keeps_its_audience_devices_and_start() {
    let (mut campaign, _) = new(&draft());
    campaign.status = CampaignStatus::Paused;
    let text = CampaignDraft {
        message: Some("Other".to_owned()),
        ..draft()
    };
    assert!(edit(&text, &campaign).1.is_empty());
    let other = CampaignDraft {
        niche: Some("vip".to_owned()),
        routing: Some("random".to_owned()),
        time_zone: Some("UTC".to_owned()),
        date: None,
        time: Some("11:00".to_owned()),
        ..draft()
    };
    let (edited, fields) = edit(&other, &campaign);
    assert_eq!(fields, ["audience", "routing", "time_zone", "date", "time"]);
    assert_eq!(edited.scheduled_at, campaign.scheduled_at);
}

#[test]
fn another_time_of_a_scheduled_campaign_must_lie_ahead_and_ends_its_question() {
    let (mut campaign, _) = new(&draft());
    campaign.status = CampaignStatus::Scheduled;
    campaign.reason = Some(CampaignReason::LateAsk);
    let later = CampaignDraft {
        time: Some("12:00".to_owned()),
        ..draft()
    };
    let (edited, fields) = edit(&later, &campaign);
    assert_eq!((edited.reason, fields.len()), (None, 0));
    let earlier = CampaignDraft {
        time: Some("08:00".to_owned()),
        ..draft()
    };
    assert_eq!(edit(&earlier, &campaign).1, ["date"]);
    let (same, fields) = edit(&draft(), &campaign);
    assert_eq!((same.reason, fields.len()), (Some(CampaignReason::LateAsk), 0));
    let without = CampaignDraft {
        date: None,
        message: None,
        ..draft()
    };
    assert_eq!(edit(&without, &campaign).1, ["message", "date"]);
}

#[test]
fn a_text_longer_than_a_transport_takes_is_warned_about_for_each_that_does_not() {
    let mut long = draft();
    long.message = Some("x".repeat(5_000));
    let (campaign, fields) = new(&long);
    assert!(fields.is_empty(), "it is a warning, no error");
    let (small, large) = (Capabilities::text(1_024), Capabilities::text(65_536));
    let carriers = [("wablas", &small), ("whatsapp_web", &large)]
        .map(|(platform, capabilities)| Carrier { platform, capabilities });
    let warnings = text_warnings((&campaign).into(), &carriers);
    assert_eq!((warnings.len(), warnings[0].code), (1, WarningCode::TooLong));
    assert!(warnings[0].message.contains("wablas") && warnings[0].message.contains("1024"));
}

#[test]
fn an_entry_names_what_is_wrong_with_it() {
    let good = EntryDraft {
        phone: "0123456789".to_owned(),
        name: Some("Ali".to_owned()),
        message: Some("Hi {{custom.town}}".to_owned()),
        custom: BTreeMap::from([("town".to_owned(), "Ipoh".to_owned())]),
    };
    let read = entry(&good, CampaignId::MIN, 3, Region::MY).unwrap();
    assert_eq!((read.position, read.phone.as_e164()), (3, "+60123456789"));
    let bad = EntryDraft {
        phone: "x".to_owned(),
        name: Some("n".repeat(201)),
        message: Some("{{nmae}}".to_owned()),
        custom: BTreeMap::from([("a.b".to_owned(), String::new())]),
    };
    let errors = entry(&bad, CampaignId::MIN, 3, Region::MY).unwrap_err();
    assert_eq!(fields(errors), ["phone", "name", "message", "custom"]);
}
