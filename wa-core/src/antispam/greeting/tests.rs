use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::seed::Seed;

fn time(hour: u16) -> LocalTime {
    LocalTime::from_hm(hour, 59).unwrap()
}

fn opening(greeting: &Greeting) -> &str {
    greeting.as_str().strip_suffix(" {name},").unwrap_or(greeting.as_str())
}

#[test]
fn the_malaysian_set_follows_the_local_hour() {
    let set = GreetingSet::default();
    let extra = "Hi {name}, apa khabar";
    let morning = vec!["Selamat pagi", "Pagi", "Assalamualaikum", extra];
    let noon = vec!["Selamat tengahari", "Salam", "Hi", extra];
    let afternoon = vec!["Selamat petang", "Petang", "Salam", extra];
    let night = vec!["Selamat malam", "Malam", "Maaf ganggu", "Pinjam masa", extra];
    for hour in 0..24 {
        let expected = match hour {
            5..12 => &morning,
            12..15 => &noon,
            15..19 => &afternoon,
            _ => &night,
        };
        assert_eq!(
            &set.at(time(hour)).iter().map(opening).collect::<Vec<_>>(),
            expected,
            "{hour}"
        );
    }
}

#[test]
fn built_in_sets_are_found_by_language() {
    for locale in ["ms-MY", "MS", "en", "en-GB", "id", "id_ID"] {
        assert!(GreetingSet::built_in(locale).is_some(), "{locale}");
    }
    assert!(GreetingSet::built_in("fr").is_none());
    assert_eq!(GreetingSet::built_in("ms-MY"), Some(&GreetingSet::default()));
}

#[test]
fn all_greetings_of_an_hour_are_equally_likely() {
    let set = GreetingSet::default();
    let mut rng = Seed::from_number(1).rng(b"k", "test");
    let mut counts = BTreeMap::new();
    for _ in 0..5_000 {
        *counts.entry(set.choose(time(22), None, &mut rng)).or_insert(0u32) += 1;
    }
    assert!(
        counts.len() == 5 && counts.values().all(|count| (850..1_150).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn the_name_stands_where_the_greeting_says() {
    assert_eq!(
        Greeting::parse("Pagi").unwrap().address("Ali"),
        ("Pagi Ali,".into(), 5..8)
    );
    assert_eq!(
        Greeting::parse("Hi {name}, apa khabar").unwrap().address("Ali"),
        ("Hi Ali, apa khabar".into(), 3..6)
    );
}

#[test]
fn names_keep_letters_and_lose_the_rest() {
    for (name, clean) in [
        ("Ali", "Ali"),
        ("  Nur-Aisyah   binti  Ali ", "Nur-Aisyah binti Ali"),
        ("O'Brien", "O'Brien"),
        ("Siti A/P Muhd. Ali", "Siti A/P Muhd. Ali"),
        ("Muhd.", "Muhd."),
        ("Aqil 1", "Aqil"),
        ("Aqil1 🌸", "Aqil"),
        ("Ali @ Abu (VIP)", "Ali Abu VIP"),
        ("- Ali -", "Ali"),
        ("'Ali'", "Ali"),
        ("Ali-/x", "Ali x"),
        ("Ali\n\u{200B}Abu", "Ali Abu"),
        ("陈小明", "陈小明"),
        ("عبد الله", "عبد الله"),
        ("முருகன்", "முருகன்"),
        ("José\u{301}", "José\u{301}"),
        ("A\u{FE0F}li", "A li"),
        ("", "Cik"),
        (" 😀 1️⃣ ", "Cik"),
        ("Ⓐ🅱️🇲🇾", "Cik"),
        ("0123456789", "Cik"),
        ("+60 12-345 6789", "Cik"),
        ("60123456789@s.whatsapp.net", "Cik"),
    ] {
        assert_eq!(clean_name(name, "Cik"), clean, "{name}");
    }
    assert_eq!(clean_name(&"Abdul ".repeat(20), "Cik"), ["Abdul"; 10].join(" "));
    assert_eq!(clean_name(&"陈".repeat(100), "Cik").chars().count(), NAME_CHARS_MAX);
    assert_eq!(GreetingSet::built_in("en").unwrap().name_of("7"), "there");
}

#[test]
fn a_text_that_greets_by_itself_is_recognised() {
    let set = GreetingSet::default();
    for text in [
        "Selamat pagi Ali,",
        "SELAMAT PETANG",
        "*Salam* semua",
        "Assalamualaikum wbt",
        "Assalamu’alaikum",
        "hi",
        "Hi Ali",
        "👋 Hai!",
        "Hiii kak",
        "Hello there",
        "Good morning",
        "Dear customer",
        "Pagi Ali,",
        "pagi",
        "Malam, boleh tanya?",
        "Maaf ganggu ya",
        "Pinjam masa sekejap",
        "\n\n  Halo",
        "Petang Nur Aisyah binti Ali! Ada promo",
    ] {
        assert!(set.greets(text), "{text}");
    }
    for text in [
        "Promo hebat",
        "Hi-tech gadget",
        "Hai-O ada jualan",
        "High quality",
        "Pagi ini kami buka",
        "Malam tadi ramai datang",
        "Malam Jumaat ada ceramah",
        "Salamander",
        "Selamat Hari Raya",
        "Hidup lebih sihat",
        "Petang yang indah begini memang sesuai untuk semua orang berehat",
        "",
        "🙂",
        "Pagi-pagi lagi",
    ] {
        assert!(!set.greets(text), "{text}");
    }
    let own = GreetingSet::new([(0, ["Vanakkam", "Namaste"])], "friend").unwrap();
    assert!(own.greets("namaste, friends") && own.greets("Hi") && !set.greets("Namaste"));
}

#[test]
fn a_set_that_could_not_vary_is_refused() {
    let set = |periods: Vec<(u16, Vec<&'static str>)>| GreetingSet::new(periods, "Cik").unwrap_err();
    assert_eq!(set(vec![]), GreetingError::Periods);
    assert_eq!(set(vec![(24, vec!["a", "b"])]), GreetingError::Periods);
    assert_eq!(
        set(vec![(1, vec!["a", "b"]), (1, vec!["a", "b"])]),
        GreetingError::Periods
    );
    assert_eq!(set(vec![(1, vec!["Hi", "Hi {name},"])]), GreetingError::Variants);
    assert_eq!(set(vec![(1, vec!["a", "b\nc"])]), GreetingError::Form);
    assert_eq!(set(vec![(1, vec!["a", "{name} {name}"])]), GreetingError::Form);
    assert_eq!(GreetingSet::new([(1, ["a", "b"])], "7"), Err(GreetingError::Nameless));
}

#[test]
fn a_greeting_survives_the_store() {
    for greeting in GreetingSet::default().at(time(3)) {
        assert_eq!(greeting.as_str().parse().as_ref(), Ok(greeting));
    }
}

proptest! {
    #[test]
    fn the_same_greeting_never_comes_twice_in_a_row(hours in prop::collection::vec(0u16..24, 1..40), number: u64) {
        let set = GreetingSet::default();
        let mut rng = Seed::from_number(number).rng(b"", "test");
        let mut previous: Option<Greeting> = None;
        for hour in hours {
            let next = set.choose(time(hour), previous.as_ref(), &mut rng).clone();
            prop_assert_ne!(Some(&next), previous.as_ref());
            previous = Some(next);
        }
    }

    #[test]
    fn a_clean_name_stays_as_it_is_and_holds_no_digit(name in "\\PC{0,80}") {
        let clean = clean_name(&name, "Cik");
        prop_assert!(!clean.is_empty() && !clean.chars().any(char::is_numeric) && !clean.contains("  "));
        prop_assert_eq!(clean_name(&clean, "Cik"), clean);
    }

    #[test]
    fn a_greeted_text_is_recognised_as_greeted(hour in 0u16..24, number: u64, locale in prop::sample::select(vec!["ms", "en", "id"])) {
        let set = GreetingSet::built_in(locale).unwrap();
        let greeting = set.choose(time(hour), None, &mut Seed::from_number(number).rng(b"", "test"));
        prop_assert!(set.greets(&greeting.address("Nur Aisyah").0));
        prop_assert!(GreetingSet::default().greets(&greeting.address("Nur Aisyah").0));
    }
}
