//! Words of a vendor, made fit for people and logs.

use super::error::Refusal;

/// The shortest run of digits that may be a phone number, so that all but its last four are hidden.
const NUMBER_DIGITS_MIN: usize = 7;

/// What a vendor said, without control characters, without the `secrets` that it repeats, without long numbers, and at
/// most [`Refusal::DETAIL_MAX`] characters long.
///
/// Vendors echo what they were given; pass the credential, the text and the digits of the recipient. Of a secret of several
/// lines, each line counts too, since an echo seldom keeps the whole; so does its form encoding. Parts shorter than four bytes are not
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
        let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let lines = secret.lines().map(str::to_owned);
        for part in [flat, form].into_iter().chain(lines) {
            let part = part.trim();
            if part.len() >= PART_BYTES_MIN && text.contains(part) {
                text = text.replace(part, "[…]");
            }
        }
    }
    hide_numbers(&text).trim().chars().take(Refusal::DETAIL_MAX).collect()
}

/// Hides phone numbers in whatever form the vendor wrote them, such as without the country code.
fn hide_numbers(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let run = rest[start..]
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len() - start);
        let end = start + run;
        shown.push_str(&rest[..start]);
        if run >= NUMBER_DIGITS_MIN {
            shown.push('…');
            shown.push_str(&rest[end - 4..end]);
        } else {
            shown.push_str(&rest[start..end]);
        }
        rest = &rest[end..];
    }
    shown + rest
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
        assert_eq!(vendor_text("m=Hi+Ali%21&x", ["Hi Ali!"]), "m=[…]&x");
    }

    #[test]
    fn a_number_in_another_form_is_hidden_too() {
        assert_eq!(
            vendor_text("0123456789 is no number, error 4001", []),
            "…6789 is no number, error 4001"
        );
    }

    #[test]
    fn a_long_text_is_cut_after_blotting_not_within_a_secret() {
        let said = format!("{}secret", "x".repeat(Refusal::DETAIL_MAX - 3));
        let shown = vendor_text(&said, ["secret"]);
        assert!(!shown.contains("sec"), "{shown}");
        assert_eq!(shown.chars().count(), Refusal::DETAIL_MAX);
    }
}
