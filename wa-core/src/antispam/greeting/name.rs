//! Names as people wrote them into lists, made fit for a greeting.

use unicode_normalization::char::is_combining_mark;

use crate::domain::phone::{Phone, Region};

/// The longest name in a greeting, in characters; a longer one is cut after a whole word.
pub const NAME_CHARS_MAX: usize = 60;

/// The letters of a name, or `nameless` when nothing is left or the name is a phone number.
///
/// Letters and marks of every script stay, and the signs `'` `-` `/` `.` inside a word (O'Brien, Nur-Aisyah, A/P, Muhd.);
/// digits, emoji and all other signs go, and blanks collapse.
#[must_use]
pub fn clean_name(name: &str, nameless: &str) -> String {
    if name.contains('@') && Phone::parse(name, &Region::MY).is_ok() {
        return nameless.to_owned();
    }
    let chars: Vec<char> = name.chars().collect();
    let mut clean = String::with_capacity(name.len());
    for (at, c) in chars.iter().copied().enumerate() {
        let before = clean
            .chars()
            .next_back()
            .filter(|before| is_letter(*before) || is_mark(*before));
        let follows_letter = before.is_some();
        let before_letter = chars.get(at + 1).is_some_and(|next| is_letter(*next));
        let stays = match c {
            '.' => follows_letter,
            '\'' | '’' | '-' | '/' => follows_letter && before_letter,
            // Joiners shape the letters of some scripts; between Latin letters they are dirt.
            '\u{200C}' | '\u{200D}' => {
                follows_letter && before_letter && !before.is_some_and(|before| before.is_ascii())
            }
            c => is_letter(c) || (is_mark(c) && follows_letter),
        };
        if stays {
            clean.push(c);
        } else if !c.is_numeric() && !clean.is_empty() && !clean.ends_with(' ') {
            clean.push(' ');
        }
    }
    let clean = shorten(clean.trim());
    if clean.is_empty() {
        nameless.to_owned()
    } else {
        clean.to_owned()
    }
}

fn shorten(name: &str) -> &str {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        None => name,
        Some((end, _)) => {
            let after_a_word = name[end..].starts_with(' ');
            let end = name[..end].rfind(' ').filter(|_| !after_a_word).unwrap_or(end);
            name[..end].trim_end_matches([' ', '\'', '’', '-', '/', '\u{200C}', '\u{200D}'])
        }
    }
}

fn is_letter(c: char) -> bool {
    // Letters in circles and squares are signs, some of them emoji.
    let enclosed = matches!(c, '\u{24B6}'..='\u{24E9}' | '\u{1F130}'..='\u{1F189}');
    c.is_alphabetic() && !enclosed && !is_combining_mark(c) && !c.is_numeric()
}

fn is_mark(c: char) -> bool {
    // Variation selectors and the keycap sign are marks by category, but parts of emoji.
    is_combining_mark(c) && !matches!(c, '\u{FE00}'..='\u{FE0F}' | '\u{20DD}'..='\u{20E4}' | '\u{E0100}'..='\u{E01EF}')
}
