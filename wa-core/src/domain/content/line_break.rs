//! Line breaks as existing texts write them, made one: LF.

/// Turns LF, CRLF, CR, the two characters `\n`, `%0A`, `<br>`, `<br/>`, `[br]` and `{br}` into LF; tags and `%0A` in either letter case.
///
/// `%0A` stays in the query of a link (`wa.me/60123456789?text=Hi%0AAli`): there it belongs to the link.
pub(super) fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut link = Link::Nothing;
    let mut escaped = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(len) = break_len(rest, link == Link::Query, escaped) {
            out.push('\n');
            rest = &rest[len..];
            link = Link::Nothing;
            escaped = false;
            continue;
        }
        out.push(c);
        rest = &rest[c.len_utf8()..];
        link = link.after(c);
        escaped = c == '\\';
    }
    out
}

/// The length of the line break that `text` begins with.
fn break_len(text: &str, in_query: bool, escaped: bool) -> Option<usize> {
    const FORMS: [&str; 11] = [
        "\r\n", "\n", "\r", "\\r\\n", "\\n", "<br>", "<br/>", "<br />", "[br]", "%0d%0a", "%0a",
    ];
    let starts = |form: &&str| {
        text.get(..form.len()).is_some_and(|head| match form.starts_with('\\') {
            true => head == *form,
            false => head.eq_ignore_ascii_case(form),
        })
    };
    if !escaped && starts(&"{br}") {
        return Some(4);
    }
    FORMS
        .iter()
        .find(|form| starts(form))
        .filter(|form| !(in_query && form.starts_with('%')))
        .map(|form| form.len())
}

/// How much of a link with a query the current word has shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Link {
    Nothing,
    Slash,
    Question,
    Query,
}

impl Link {
    fn after(self, c: char) -> Self {
        match (self, c) {
            (_, c) if c.is_whitespace() => Self::Nothing,
            (Self::Nothing, '/') => Self::Slash,
            (Self::Slash, '?') => Self::Question,
            (Self::Question, '=') => Self::Query,
            (state, _) => state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_line_break_becomes_one_line_feed() {
        for form in [
            "\n", "\r\n", "\r", "\\n", "\\r\\n", "%0A", "%0a", "%0D%0A", "<br>", "<BR>", "<br/>", "<br />", "[br]",
            "{br}", "{BR}",
        ] {
            assert_eq!(normalise(&format!("a{form}b{form}{form}")), "a\nb\n\n", "{form:?}");
        }
    }

    #[test]
    fn a_break_inside_the_query_of_a_link_belongs_to_the_link() {
        let link = "https://wa.me/60123456789?text=Hi%0AAli";
        assert_eq!(
            normalise(&format!("{link}%0Ax {link}<br>y%0Az")),
            format!("{link}%0Ax {link}\ny\nz")
        );
        assert_eq!(
            normalise("https://shop.my/a%0ASila? a=%0A"),
            "https://shop.my/a\nSila? a=\n"
        );
    }

    #[test]
    fn an_escaped_brace_begins_no_break() {
        assert_eq!(normalise("\\{br}"), "\\{br}");
    }
}
