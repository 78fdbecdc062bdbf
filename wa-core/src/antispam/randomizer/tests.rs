use proptest::prelude::*;

use super::*;
use crate::antispam::homoglyph::undo;
use crate::seed::Seed;

fn config(letters_percent: u8, zero_width: u8) -> RandomizerConfig {
    RandomizerConfig::default()
        .with_letters_percent(letters_percent)
        .unwrap()
        .with_zero_width(zero_width)
        .unwrap()
}

fn run(text: &str, config: RandomizerConfig, number: u64) -> String {
    randomize(text, &[], config, &mut Seed::from_number(number).rng(b"", "test"))
}

/// The characters of `before` that `after` replaced, by index, and how many zero-width characters it put in.
fn changes(before: &str, after: &str) -> Result<(Vec<usize>, usize), String> {
    let before: Vec<char> = before.chars().collect();
    let (mut replaced, mut inserted, mut at) = (Vec::new(), 0, 0);
    for c in after.chars() {
        match before.get(at).copied() {
            Some(old) if old == c => at += 1,
            _ if ZERO_WIDTHS.contains(&c) => inserted += 1,
            Some(old) if look_alike(old) == Some(c) => {
                replaced.push(at);
                at += 1;
            }
            old => return Err(format!("{old:?} became {c:?}")),
        }
    }
    if at == before.len() {
        Ok((replaced, inserted))
    } else {
        Err("the end is missing".into())
    }
}

const TEXT: &str = "Jom cuba produk kami sekarang, pasti puas hati dan jimat belanja setiap bulan";

#[test]
fn the_shares_asked_for_are_changed() {
    let letters = TEXT.chars().filter(|c| c.is_alphabetic()).count();
    assert_eq!(letters, 64);
    for number in 0..50 {
        assert_eq!(
            changes(TEXT, &run(TEXT, config(5, 2), number)).map(|(replaced, zero)| (replaced.len(), zero)),
            Ok((3, 2))
        );
        assert_eq!(
            changes(TEXT, &run(TEXT, config(15, 5), number)).map(|(replaced, zero)| (replaced.len(), zero)),
            Ok((10, 5))
        );
    }
    assert_eq!(run(TEXT, config(0, 0), 1), TEXT);
    assert_eq!(
        changes("jom", &run("jom", config(1, 5), 1)).map(|(replaced, zero)| (replaced.len(), zero)),
        Ok((1, 0))
    );
}

#[test]
fn hardly_two_texts_of_a_campaign_are_equal() {
    let texts: std::collections::BTreeSet<String> = (0..100)
        .map(|number| run(TEXT, RandomizerConfig::default(), number))
        .collect();
    assert!(texts.len() >= 99, "{}", texts.len());
}

#[test]
fn settings_out_of_range_are_refused_with_their_name() {
    let error = RandomizerConfig::default().with_letters_percent(16).unwrap_err();
    assert_eq!(error.to_string(), "letters_percent must be 0 to 15");
    assert!(RandomizerConfig::default().with_zero_width(6).is_err());
    assert_eq!(
        serde_json::from_str::<RandomizerConfig>("{}").unwrap(),
        RandomizerConfig::default()
    );
    assert_eq!(
        serde_json::from_str::<RandomizerConfig>(r#"{"zero_width":0}"#).unwrap(),
        config(5, 0)
    );
    let error = serde_json::from_str::<RandomizerConfig>(r#"{"zero_width":6}"#).unwrap_err();
    assert!(error.to_string().contains("zero_width must be 0 to 5"), "{error}");
}

/// A piece of text and whether it is protected.
fn piece() -> impl Strategy<Value = (String, bool)> {
    let protected = prop_oneof![
        "https?://[a-z]{2,8}\\.(my|com)(/[a-zA-Z0-9_?=&%-]{0,12})?",
        "(www\\.)?[a-z]{3,8}\\.(my|com\\.my|co)",
        "[a-z.]{1,8}@[a-z]{2,8}\\.com",
        "\\+?60 ?1[0-9]-[0-9]{3} ?[0-9]{4}",
        "(RM|Rp|USD)? ?[0-9]{1,4}(\\.[0-9]{2})?",
        "[A-Z]{1,8}[0-9]{0,3}",
        "[a-z]{1,4}[0-9]{1,3}[a-z]{0,3}",
        "[аеору]{1,6}|[\u{627}-\u{63A}]{1,6}|[ก-ฮ]{1,4}|[அ-ஔ]{1,3}",
        "```[a-z \n]{0,8}```|`[a-z ]{1,8}`",
        prop::sample::select(vec![
            "👨\u{200D}👩\u{200D}👧",
            "❤️",
            "🇲🇾",
            "👍🏽",
            "1️⃣",
            "🏴\u{E0067}\u{E0062}\u{E007F}",
            "*",
            "_",
            "~",
            ">",
            "-",
            "\n",
            "\n\n",
            "\t",
            "  ",
        ])
        .prop_map(str::to_owned),
    ];
    let plain = "[*_~\"(]?[A-Z]?[a-z]{1,10}[,.!?*_~\")]?";
    prop_oneof![
        2 => protected.prop_map(|text| (text, true)),
        3 => plain.prop_map(|text| (text, false)),
    ]
}

fn any_config() -> impl Strategy<Value = RandomizerConfig> {
    (0..=LETTERS_PERCENT_MAX, 0..=ZERO_WIDTH_MAX).prop_map(|(letters, zero)| config(letters, zero))
}

proptest! {
    #[test]
    fn no_protected_span_is_altered_and_every_line_break_stays(
        pieces in prop::collection::vec(piece(), 0..24), config in any_config(), number: u64,
    ) {
        let mut text = String::new();
        let mut protected = Vec::new();
        for (piece, is_protected) in &pieces {
            if !text.is_empty() {
                text.push(' ');
            }
            if *is_protected {
                let start = text.chars().count();
                protected.push((piece.as_str(), start..start + piece.chars().count()));
            }
            text.push_str(piece);
        }
        let after = run(&text, config, number);
        let (replaced, inserted) = changes(&text, &after).map_err(TestCaseError::fail)?;
        for at in replaced {
            prop_assert!(!protected.iter().any(|(_, span)| span.contains(&at)), "{:?} in {:?}", at, after);
        }
        prop_assert!(inserted <= usize::from(config.zero_width()));
        prop_assert_eq!(text.matches('\n').count(), after.matches('\n').count());
        // Unaltered, and in their order.
        let mut rest = after.as_str();
        for (piece, _) in protected {
            let at = rest.find(piece);
            prop_assert!(at.is_some(), "{:?} is missing from {:?}", piece, after);
            rest = &rest[at.unwrap_or(0) + piece.len()..];
        }
    }

    #[test]
    fn the_skeleton_stays(text in "\\PC{0,200}", words in "([A-Za-z]{1,8}[ ,.\n]){0,30}", config in any_config(), number: u64) {
        for text in [&text, &words, &format!("{words}{text}{words}")] {
            let after = run(text, config, number);
            prop_assert_eq!(undo(&after), undo(text));
            prop_assert!(changes(text, &after).is_ok());
        }
    }

    #[test]
    fn zero_width_characters_stand_between_two_latin_words_only(words in "([A-Za-zéا🙂*]{1,6}[ ,.\n]{1,2}){1,20}", number: u64) {
        let after: Vec<char> = run(&words, config(0, 5), number).chars().collect();
        for (at, _) in after.iter().enumerate().filter(|(_, c)| ZERO_WIDTHS.contains(c)) {
            let (before, behind) = (after.get(at.wrapping_sub(1)), after.get(at + 1));
            let is_letter = |c: Option<&char>| c.is_some_and(|c| c.is_ascii_alphabetic() || *c == 'é');
            let stands_well = (before == Some(&' ') && is_letter(behind)) || (is_letter(before) && behind == Some(&' '));
            prop_assert!(stands_well, "{:?} | {:?}", before, behind);
        }
    }

    #[test]
    fn merged_values_stay_as_they_are(value in "\\PC{1,30}|[a-z]{1,8}( [a-z]{1,8}){0,3}", number: u64) {
        let text = format!("sila{value}pasti beli {value} dan guna kod {value}, ya {value}");
        let mut merged = Vec::new();
        let mut from = 4;
        for gap in [11, 14, 5, 0] {
            merged.push(from..from + value.len());
            from += value.len() + gap;
        }
        for span in &merged {
            prop_assert_eq!(&text[span.clone()], value.as_str());
        }
        let after = randomize(&text, &merged, config(15, 5), &mut Seed::from_number(number).rng(b"", "test"));
        let (replaced, _) = changes(&text, &after).map_err(TestCaseError::fail)?;
        for at in replaced {
            let at = text.char_indices().nth(at).map_or(0, |(at, _)| at);
            prop_assert!(!merged.iter().any(|span| span.contains(&at)));
        }
        let mut rest = after.as_str();
        for _ in merged {
            let at = rest.find(&value);
            prop_assert!(at.is_some(), "missing from {:?}", after);
            rest = &rest[at.unwrap_or(0) + value.len()..];
        }
    }
}
