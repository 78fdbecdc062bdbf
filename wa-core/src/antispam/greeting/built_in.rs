//! The sets that come with the crate.

use std::sync::LazyLock;

use super::GreetingSet;

type Table = [(u16, &'static [&'static str])];

const MALAYSIAN: &Table = &[
    (5, &["Selamat pagi", "Pagi", "Assalamualaikum", "Hi {name}, apa khabar"]),
    (12, &["Selamat tengahari", "Salam", "Hi", "Hi {name}, apa khabar"]),
    (15, &["Selamat petang", "Petang", "Salam", "Hi {name}, apa khabar"]),
    (
        19,
        &[
            "Selamat malam",
            "Malam",
            "Maaf ganggu",
            "Pinjam masa",
            "Hi {name}, apa khabar",
        ],
    ),
];

const ENGLISH: &Table = &[
    (5, &["Good morning", "Morning", "Hello", "Hi {name}, how are you"]),
    (12, &["Good afternoon", "Hello", "Hi", "Hi {name}, how are you"]),
    (18, &["Good evening", "Evening", "Hello", "Hi {name}, how are you"]),
    (22, &["Good evening", "Hello", "Hi", "Hi {name}, how are you"]),
];

const INDONESIAN: &Table = &[
    (5, &["Selamat pagi", "Pagi", "Halo", "Halo {name}, apa kabar"]),
    (11, &["Selamat siang", "Siang", "Halo", "Halo {name}, apa kabar"]),
    (15, &["Selamat sore", "Sore", "Halo", "Halo {name}, apa kabar"]),
    (18, &["Selamat malam", "Malam", "Permisi", "Halo {name}, apa kabar"]),
];

fn set(table: &Table, nameless: &str) -> GreetingSet {
    let periods = table.iter().map(|(hour, greetings)| (*hour, greetings.iter().copied()));
    GreetingSet::new(periods, nameless).expect("the built-in tables are well formed")
}

static MALAYSIAN_SET: LazyLock<GreetingSet> = LazyLock::new(|| set(MALAYSIAN, "Cik"));
static ENGLISH_SET: LazyLock<GreetingSet> = LazyLock::new(|| set(ENGLISH, "there"));
static INDONESIAN_SET: LazyLock<GreetingSet> = LazyLock::new(|| set(INDONESIAN, "Kak"));

pub(super) fn malaysian() -> &'static GreetingSet {
    &MALAYSIAN_SET
}

pub(super) fn of(locale: &str) -> Option<&'static GreetingSet> {
    let language = locale.trim().split(['-', '_']).next().unwrap_or_default();
    match language.to_ascii_lowercase().as_str() {
        "ms" => Some(&MALAYSIAN_SET),
        "en" => Some(&ENGLISH_SET),
        "id" => Some(&INDONESIAN_SET),
        _ => None,
    }
}
