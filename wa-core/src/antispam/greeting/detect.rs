//! Recognises a text that greets by itself, so that nobody is greeted twice.

/// How far into a text a greeting is looked for, in characters.
const LOOK_AT_CHARS: usize = 200;

/// Openings that are greetings wherever a text begins with them, in lower case.
const OPENINGS: [&str; 27] = [
    "assalamualaikum",
    "assalamu'alaikum",
    "assalammualaikum",
    "asalamualaikum",
    "assalamu",
    "assalam",
    "as-salamu",
    "salam",
    "hi",
    "hai",
    "hey",
    "hello",
    "helo",
    "halo",
    "hallo",
    "dear",
    "greetings",
    "selamat pagi",
    "selamat tengahari",
    "selamat tengah hari",
    "selamat petang",
    "selamat malam",
    "selamat siang",
    "selamat sore",
    "maaf ganggu",
    "maaf mengganggu",
    "permisi",
];

/// More openings, of two words.
const PHRASES: [&str; 6] = [
    "selamat sejahtera",
    "pinjam masa",
    "good morning",
    "good afternoon",
    "good evening",
    "good day",
];

/// Parts of the day, which greet (`Pagi Ali,`) or tell a time (`Pagi ini kami buka`).
const PARTS_OF_DAY: [&str; 8] = [
    "pagi",
    "tengahari",
    "petang",
    "malam",
    "siang",
    "sore",
    "morning",
    "evening",
];

/// What makes a time of a part of the day when it follows.
const TIMES: [&str; 23] = [
    "ini", "itu", "tadi", "esok", "besok", "nanti", "semalam", "kelmarin", "kemarin", "hari", "isnin", "selasa",
    "rabu", "khamis", "kamis", "jumaat", "jumat", "sabtu", "ahad", "minggu", "senin", "tahun", "is",
];

/// The most words between a part of the day that greets and the end of the greeting.
const NAME_WORDS_MAX: usize = 5;

pub(super) fn begins_with_greeting<'a>(text: &str, own: impl Iterator<Item = &'a str>) -> bool {
    let start = text.trim_start_matches(|c: char| !c.is_alphanumeric());
    let start = in_lower_case(start);
    if OPENINGS
        .iter()
        .chain(&PHRASES)
        .any(|opening| after(&start, opening).is_some())
    {
        return true;
    }
    if PARTS_OF_DAY
        .iter()
        .any(|part| after(&start, part).is_some_and(addresses_someone))
    {
        return true;
    }
    own.map(str::to_lowercase)
        .filter(|opening| !opening.is_empty() && !PARTS_OF_DAY.contains(&opening.as_str()))
        .any(|opening| after(&start, &opening).is_some())
}

/// The first characters of a text in lower case, with one kind of apostrophe.
fn in_lower_case(text: &str) -> String {
    let most = text.len().min(LOOK_AT_CHARS);
    // Of most texts these are plain, and a byte each.
    let mut start = match text.as_bytes().get(..most) {
        Some(bytes) if bytes.is_ascii() => text[..most].to_ascii_lowercase(),
        _ => text.chars().take(LOOK_AT_CHARS).flat_map(char::to_lowercase).collect(),
    };
    if start.contains(['’', '`']) {
        start = start.replace(['’', '`'], "'");
    }
    start
}

/// What follows `opening` at the start of `text`, if a word ends there; `hiii` counts as `hi`.
fn after<'a>(text: &'a str, opening: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(opening)?;
    let rest = rest.trim_start_matches(opening.chars().next_back()?);
    let mut chars = rest.chars();
    let inside_a_word = match chars.next() {
        Some('-' | '\'') => chars.next().is_some_and(char::is_alphanumeric),
        Some(c) => c.is_alphanumeric(),
        None => false,
    };
    (!inside_a_word).then_some(rest)
}

/// Whether what follows a part of the day is a name or nothing, and then the end of a phrase.
fn addresses_someone(rest: &str) -> bool {
    let phrase = rest.split([',', '!', '.', '\n']).next().unwrap_or_default();
    let mut words = phrase
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty());
    let tells_a_time = words.next().is_some_and(|word| TIMES.contains(&word));
    !tells_a_time && words.count() < NAME_WORDS_MAX
}
