//! Letters that a reader cannot tell apart, and the form of a text in which they are one.

/// Latin letters and the Cyrillic ones that look the same (Unicode's confusables, UTS #39); no others are ever used.
const PAIRS: [(char, char); 24] = [
    ('a', 'а'),
    ('c', 'с'),
    ('e', 'е'),
    ('i', 'і'),
    ('j', 'ј'),
    ('o', 'о'),
    ('p', 'р'),
    ('s', 'ѕ'),
    ('x', 'х'),
    ('y', 'у'),
    ('A', 'А'),
    ('B', 'В'),
    ('C', 'С'),
    ('E', 'Е'),
    ('H', 'Н'),
    ('I', 'І'),
    ('J', 'Ј'),
    ('K', 'К'),
    ('M', 'М'),
    ('O', 'О'),
    ('P', 'Р'),
    ('S', 'Ѕ'),
    ('T', 'Т'),
    ('X', 'Х'),
];

/// The letter that looks like a Latin one, of the same case; `None` where none is indistinguishable.
#[must_use]
pub fn look_alike(letter: char) -> Option<char> {
    // The Cyrillic capital У does not look like Y; the straight Ү does.
    if letter == 'Y' {
        return Some('Ү');
    }
    PAIRS
        .iter()
        .find(|(latin, _)| *latin == letter)
        .map(|(_, alike)| *alike)
}

/// The skeleton of a text (UTS #39, section 4): equal for two texts that look the same, zero-width characters left out.
///
/// It is for comparing and searching, not for showing: letters become stand-ins that a reader would not expect.
#[must_use]
pub fn undo(text: &str) -> String {
    unicode_security::skeleton(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_looks_the_same_to_unicode_and_keeps_its_case() {
        let mut pairs = 0;
        for letter in ('a'..='z').chain('A'..='Z') {
            let Some(alike) = look_alike(letter) else { continue };
            pairs += 1;
            assert_ne!(letter, alike);
            assert_eq!(undo(&letter.to_string()), undo(&alike.to_string()), "{letter}");
            assert_eq!(letter.is_uppercase(), alike.is_uppercase(), "{letter}");
            assert!(
                ('\u{400}'..='\u{4FF}').contains(&alike),
                "{letter} must have a Cyrillic look-alike"
            );
        }
        assert_eq!(pairs, 25);
        for letter in ['b', 'd', 'r', 'h', 'k', 'm', 't', 'ć', 'D', 'R', '1', ' '] {
            assert_eq!(look_alike(letter), None, "{letter}");
        }
    }

    #[test]
    fn texts_that_look_the_same_have_one_skeleton() {
        assert_eq!(undo("Jоm b\u{200B}еli"), undo("Jom beli"));
        assert_ne!(undo("Jom beli"), undo("Jom bela"));
    }
}
