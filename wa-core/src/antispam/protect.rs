//! What the randomizer must not touch, found the safe way round: by naming the few words that it may.

use std::ops::Range;

/// The most letters of a word that belongs to a number beside it (`Rp 50.000`, `No. 7`, `8 pm`).
const UNIT_LETTERS_MAX: usize = 3;

/// Signs that may stand before a plain word: quotes, brackets, dashes and WhatsApp's markup.
const OPENING: &[char] = &['*', '_', '~', '"', '\'', '(', '“', '‘', '-', '–', '—'];

/// Signs that may stand after a plain word.
const CLOSING: &[char] = &[
    '*', '_', '~', '.', ',', '!', '?', ';', ':', '"', '\'', ')', '”', '’', '…', '-', '–', '—',
];

/// The plain words of a text, as byte ranges in order: Latin letters, inside them at most `'` and `-`.
///
/// Everything else is protected: links, bare domains, e-mail addresses, hashtags, mentions, anything with a digit and the
/// short word beside it, words in capitals or with capitals inside, monospaced text, emoji, other scripts, blanks, punctuation
/// and markup; and every word that touches one of the `merged` ranges, which are in order and apart.
#[must_use]
pub fn plain_words(text: &str, merged: &[Range<usize>]) -> Vec<Range<usize>> {
    let monospaced = monospaced(text);
    let chunks = chunks(text);
    let mut words = Vec::new();
    for (at, chunk) in chunks.iter().enumerate() {
        let touched = touches(merged, chunk) || touches(&monospaced, chunk);
        let Some(word) = (!touched).then(|| core(text, chunk)).flatten() else {
            continue;
        };
        let mut neighbours = [at.checked_sub(1), Some(at + 1)]
            .into_iter()
            .flatten()
            .filter_map(|at| chunks.get(at));
        let is_unit = text[word.clone()].chars().count() <= UNIT_LETTERS_MAX
            && neighbours.any(|other| text[other.clone()].contains(char::is_numeric));
        if !is_unit {
            words.push(word);
        }
    }
    words
}

/// Whether one of the spans, which are in order and apart, overlaps the chunk.
fn touches(spans: &[Range<usize>], chunk: &Range<usize>) -> bool {
    let next = spans.partition_point(|span| span.end <= chunk.start);
    spans.get(next).is_some_and(|span| span.start < chunk.end)
}

/// The runs of text between blanks.
fn chunks(text: &str) -> Vec<Range<usize>> {
    let mut chunks = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices() {
        match (start, c.is_whitespace()) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                chunks.push(from..at);
                start = None;
            }
            _ => {}
        }
    }
    chunks.extend(start.map(|from| from..text.len()));
    chunks
}

/// The word of a chunk without the signs around it, if it is plain.
fn core(text: &str, chunk: &Range<usize>) -> Option<Range<usize>> {
    let whole = &text[chunk.clone()];
    let head = whole.trim_start_matches(OPENING);
    let word = head.trim_end_matches(CLOSING);
    let start = chunk.end - head.len();
    let plain = !word.is_empty() && word.split(['\'', '’', '-']).all(is_plain_part);
    plain.then(|| start..start + word.len())
}

/// Whether a part of a word is written as words are: Latin letters, a capital at most first, not capitals alone.
fn is_plain_part(part: &str) -> bool {
    let mut letters = part.chars();
    let Some(first) = letters.next() else { return false };
    is_latin(first)
        && letters.clone().all(|c| is_latin(c) && !c.is_uppercase())
        && (first.is_lowercase() || letters.next().is_some())
}

fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic()
        || (matches!(c, '\u{C0}'..='\u{24F}' | '\u{1E00}'..='\u{1EFF}') && (c.is_lowercase() || c.is_uppercase()))
}

/// What stands between backticks, one or three, with the backticks.
fn monospaced(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut from = 0;
    while let Some(start) = text[from..].find('`').map(|at| from + at) {
        let fence = if text[start..].starts_with("```") { "```" } else { "`" };
        let body = start + fence.len();
        let end = text[body..].find(fence).map(|at| body + at);
        match end.filter(|end| fence.len() == 3 || !text[body..*end].contains('\n')) {
            Some(end) => {
                from = end + fence.len();
                spans.push(start..from);
            }
            None => from = body,
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        plain_words(text, &[]).into_iter().map(|word| &text[word]).collect()
    }

    #[test]
    fn plain_words_are_found_inside_punctuation_and_markup() {
        assert_eq!(
            words("*Jom* beli, _sekarang_ ~juga~! (Nur-Aisyah) \"Jum'at\" é à…"),
            ["Jom", "beli", "sekarang", "juga", "Nur-Aisyah", "Jum'at", "é", "à"]
        );
    }

    #[test]
    fn what_carries_meaning_letter_by_letter_is_protected() {
        for text in [
            "https://shop.my/promo",
            "shop.my",
            "www.shop.my.",
            "(wa.me/abc)",
            "ali@example.com",
            "@ali",
            "#promo",
            "B2B",
            "covid-19",
            "RM1.50",
            "+60123456789",
            "VIP",
            "A",
            "e-DAFTAR",
            "iPhone",
            "A-level",
            "dan/atau",
            "kod:abc",
            "a=b",
            "{x}",
            "🙂hai",
            "hai🙂",
            "привет",
            "陈",
            "سلام",
            "cafe\u{301}",
            "a\u{200B}b",
            "`kod rahsia`",
            "```a\nb c```",
            "-",
            "*",
            "1.",
            "<b>",
            "½x",
        ] {
            assert_eq!(words(text), Vec::<&str>::new(), "{text}");
        }
    }

    #[test]
    fn a_short_word_beside_a_number_belongs_to_it() {
        assert_eq!(
            words("harga Rp 50.000 saja, No. 7 atau 8 pm nanti"),
            ["harga", "saja", "atau", "nanti"]
        );
    }

    #[test]
    fn a_word_that_touches_a_merged_value_is_protected() {
        let text = "Hai Aliku sayang";
        assert_eq!(plain_words(text, std::slice::from_ref(&(4..7))), [0..3, 10..16]);
    }

    #[test]
    fn a_backtick_alone_protects_nothing() {
        assert_eq!(words("a`b saja\nlagi` ya"), ["saja", "ya"]);
    }
}
