use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::antispam::homoglyph::undo;

/// All that a request borrows.
struct Case {
    template: Template,
    values: MergeValues,
    set: GreetingSet,
    seed: Seed,
}

impl Case {
    fn new(source: &str) -> Self {
        Self {
            template: Template::parse(source).unwrap(),
            values: MergeValues {
                name: "Nur Aisyah 2".into(),
                phone: "+60123456789".into(),
                niche: "vitac".into(),
                custom: BTreeMap::from([
                    ("kod".into(), "sale-ofx".into()),
                    ("pautan".into(), "shop.my/s?a=cepat".into()),
                ]),
            },
            set: GreetingSet::default(),
            seed: Seed::from_number(5),
        }
    }

    fn request(&self, message: u128) -> RenderRequest<'_> {
        let time = LocalTime::from_hm(9, 30).unwrap();
        RenderRequest {
            template: &self.template,
            values: &self.values,
            scope: RenderScope::Bulk,
            greeting: Some(GreetingChoice {
                set: &self.set,
                time,
                previous: None,
            }),
            randomizer: Some(RandomizerConfig::default()),
            seed: &self.seed,
            message: MessageId::from_uuid(Uuid::from_u128(message)),
            round: 1,
        }
    }
}

#[test]
fn the_same_request_gives_the_same_text_and_another_message_or_round_another() {
    let case = Case::new("{Jom|Mari} cuba {produk|barang} {baru|terkini|hebat} kami sekarang juga {{name}}");
    let text = |message, round| {
        render(&RenderRequest {
            round,
            ..case.request(message)
        })
        .unwrap()
        .text
    };
    assert_eq!(text(1, 1), text(1, 1));
    let texts: BTreeSet<String> = (0..50).map(|message| text(message, 1)).chain([text(0, 2)]).collect();
    assert!(texts.len() >= 50, "{}", texts.len());
}

#[test]
fn a_greeting_stands_before_the_text_with_a_blank_line() {
    let case = Case::new("Kami ada promo.\nJom!");
    let request = RenderRequest {
        randomizer: None,
        ..case.request(1)
    };
    let rendered = render(&request).unwrap();
    let greeting = rendered.greeting.unwrap();
    assert!(case.set.at(LocalTime::from_hm(9, 30).unwrap()).contains(&greeting));
    let head = greeting.as_str().replace("{name}", "Nur Aisyah");
    assert_eq!(rendered.text, format!("{head}\n\nKami ada promo.\nJom!"));
}

#[test]
fn a_lead_is_not_greeted_twice_alike_in_a_row() {
    let case = Case::new("Kami ada promo");
    let mut previous = None;
    for message in 0..100 {
        let mut request = case.request(message);
        request.greeting.as_mut().unwrap().previous = previous.as_ref();
        let greeting = render(&request).unwrap().greeting;
        assert_ne!(greeting, previous);
        previous = greeting;
    }
}

#[test]
fn a_text_that_greets_gets_no_greeting_whichever_option_was_drawn() {
    let case = Case::new("{Hi {{name}}|Jom {{name}}}, kami ada promo");
    let mut greeted = 0;
    for message in 0..50 {
        let rendered = render(&RenderRequest {
            randomizer: None,
            ..case.request(message)
        })
        .unwrap();
        assert_eq!(
            rendered.greeting.is_none(),
            rendered.text.starts_with("Hi Nur Aisyah 2, kami")
        );
        greeted += u32::from(rendered.greeting.is_none());
    }
    assert!((10..40).contains(&greeted), "{greeted}");
}

#[test]
fn interactive_messages_get_neither_greeting_nor_randomizer() {
    let case = Case::new("Terima kasih kerana menghubungi kami {{name|Cik}}");
    let rendered = render(&RenderRequest {
        scope: RenderScope::Interactive,
        ..case.request(1)
    })
    .unwrap();
    assert_eq!(rendered.text, "Terima kasih kerana menghubungi kami Nur Aisyah 2");
    assert_eq!(rendered.greeting, None);
}

#[test]
fn turning_the_randomizer_off_changes_nothing_else() {
    let case = Case::new("{Jom|Mari} cuba {produk|barang} kami");
    for message in 0..20 {
        let on = render(&case.request(message)).unwrap();
        let off = render(&RenderRequest {
            randomizer: None,
            ..case.request(message)
        })
        .unwrap();
        assert_ne!(on.text, off.text);
        assert_eq!(on.greeting, off.greeting);
        assert_eq!(undo(&on.text), undo(&off.text));
    }
}

#[test]
fn nothing_to_say_is_an_error_also_with_a_greeting() {
    for source in ["", " \n ", "{{custom.none}}", "{|}"] {
        assert_eq!(
            render(&Case::new(source).request(1)).unwrap_err(),
            RenderError::Empty,
            "{source}"
        );
    }
}

#[test]
fn values_cannot_make_a_text_without_bound() {
    let mut case = Case::new(&"{{name}}".repeat(1_000));
    case.values.name = "x".repeat(1_000);
    assert!(matches!(
        render(&case.request(1)),
        Err(RenderError::TooLong { chars: 1_000_000.. })
    ));
}

#[test]
fn debug_output_shows_only_the_length() {
    let case = Case::new("rahsia besar");
    let rendered = render(&RenderRequest {
        randomizer: None,
        greeting: None,
        ..case.request(1)
    })
    .unwrap();
    assert_eq!(format!("{rendered:?}"), "Rendered { chars: 12, .. }");
    assert!(!format!("{:?}", case.request(1)).contains("rahsia"));
}

/// A source with its text when nothing is drawn: no choices, and values known.
fn piece() -> impl Strategy<Value = (String, String)> {
    prop_oneof![
        3 => "[A-Z]?[a-z]{1,9}[,.!?]?".prop_map(|text| (text.clone(), text)),
        2 => prop::sample::select(vec![
            ("https://shop.my/a?b=c&d=%20x", "https://shop.my/a?b=c&d=%20x"), ("RM1.50", "RM1.50"), ("VITAC", "VITAC"), ("👨\u{200D}👩\u{200D}👧", "👨\u{200D}👩\u{200D}👧"),
            ("{{name}}", "Nur Aisyah 2"), ("{{custom.kod}}", "sale-ofx"), ("{{custom.pautan}}", "shop.my/s?a=cepat"), ("{name}ku", "Nur Aisyah 2ku"),
            ("{{custom.none|sila}}", "sila"), ("\\{cepat\\}", "{cepat}"), ("<br>", "\n"), ("\\n", "\n"), ("%0A", "\n"), ("\n\n", "\n\n"), ("*Jom beli*", "*Jom beli*"),
            ("سلام", "سلام"), ("ali@kedai.my", "ali@kedai.my"), ("+60 12-345 6789", "+60 12-345 6789"),
        ]).prop_map(|(source, text)| (source.to_owned(), text.to_owned())),
    ]
}

proptest! {
    #[test]
    fn rendering_keeps_line_breaks_values_and_what_is_protected(
        pieces in prop::collection::vec(piece(), 1..24), message: u128, letters in 0u8..=15, zero in 0u8..=5,
    ) {
        let source = pieces.iter().map(|(source, _)| source.as_str()).collect::<Vec<_>>().join(" ");
        let text = pieces.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>().join(" ");
        prop_assume!(!text.trim().is_empty());
        let case = Case::new(&source);
        let config = RandomizerConfig::default().with_letters_percent(letters).unwrap().with_zero_width(zero).unwrap();
        let request = RenderRequest { randomizer: Some(config), ..case.request(message) };
        let rendered = render(&request).unwrap();
        let head = rendered.greeting.map(|greeting| format!("{}\n\n", greeting.as_str().replace("{name}", "Nur Aisyah"))).unwrap_or_default();
        prop_assert_eq!(undo(&rendered.text), undo(&format!("{head}{text}")));
        prop_assert!(rendered.text.chars().count() <= longest(&request));
        let breaks = |text: &str| text.matches('\n').count();
        prop_assert_eq!(breaks(&rendered.text), breaks(&head) + breaks(&text));
        let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphabetic() || ",.!?*".contains(c) || c == ' ');
        let mut rest = rendered.text.as_str();
        for (source, text) in pieces.iter().filter(|(source, text)| source.starts_with("{{") && text != "sila" || !is_plain(text) || text == "VITAC") {
            let at = rest.find(text.as_str());
            prop_assert!(at.is_some(), "{:?} is missing from {:?}", source, rendered.text);
            rest = &rest[at.unwrap_or(0) + text.len()..];
        }
    }

    #[test]
    fn no_text_or_value_makes_rendering_panic(source in "\\PC{0,80}", name in "\\PC{0,40}", hour in 0u16..24, message: u128) {
        if let Ok(template) = Template::parse(&source) {
            let mut case = Case::new("x");
            case.template = template;
            case.values.name = name;
            let mut request = case.request(message);
            request.greeting.as_mut().unwrap().time = LocalTime::from_hm(hour, 0).unwrap();
            let _ = render(&request);
        }
    }
}
