//! Words of a vendor, made fit for people and logs.

use super::error::Refusal;

/// What a vendor said, without control characters, without the `secrets` that it repeats, and at most
/// [`Refusal::DETAIL_MAX`] characters long.
///
/// Vendors echo what they were given; pass the credential, the text and the digits of the recipient. Of a secret of several
/// lines or words, each line counts too, since an echo seldom keeps the whole. Parts shorter than four bytes are not
/// looked for: they would blot out ordinary words.
#[must_use]
pub fn vendor_text<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    const PART_BYTES_MIN: usize = 4;
    let mut text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(Refusal::DETAIL_MAX * 8)
        .collect();
    for secret in secrets {
        let flat: String = secret.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let lines = secret.lines().map(str::to_owned);
        for part in std::iter::once(flat).chain(lines) {
            let part = part.trim();
            if part.len() >= PART_BYTES_MIN && text.contains(part) {
                text = text.replace(part, "[…]");
            }
        }
    }
    text.trim().chars().take(Refusal::DETAIL_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_vendor_echoes_is_blotted_out() {
        let said = "token tok.sec sent \"Hi Ali\nhow are you\" to 60123456789\u{7}";
        let shown = vendor_text(said, ["tok.sec", "Hi Ali\nhow are you", "60123456789"]);
        assert_eq!(shown, "token […] sent \"[…]\" to […]");
        assert_eq!(vendor_text("how are you?", ["Hi Ali\nhow are you"]), "[…]?");
    }

    #[test]
    fn a_long_text_is_cut_after_blotting_not_within_a_secret() {
        let said = format!("{}secret", "x".repeat(Refusal::DETAIL_MAX - 3));
        let shown = vendor_text(&said, ["secret"]);
        assert!(!shown.contains("sec"), "{shown}");
        assert_eq!(shown.chars().count(), Refusal::DETAIL_MAX);
    }
}
