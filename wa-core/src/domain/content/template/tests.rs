use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::seed::Seed;

fn values() -> MergeValues {
    MergeValues {
        name: " Ali ".into(),
        phone: "+60123456789".into(),
        niche: String::new(),
        custom: BTreeMap::from([
            ("kod".into(), "VIP-7".into()),
            ("odd".into(), "{{name}}|{a|b}\\n<br>".into()),
        ]),
    }
}

/// Every text that the source can give within 200 draws.
fn all(source: &str) -> BTreeSet<String> {
    let template = Template::parse(source).unwrap();
    (0..200u64)
        .map(|draw| {
            template
                .evaluate(&values(), &mut Seed::from_number(7).rng(&draw.to_le_bytes(), "test"))
                .text
        })
        .collect()
}

fn one(source: &str) -> String {
    let texts = all(source);
    assert_eq!(texts.len(), 1, "{texts:?}");
    texts.into_iter().next().unwrap()
}

fn set(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn fields_take_values_and_fallbacks() {
    assert_eq!(
        one("Hi {{name}}, {{ Phone }} {{custom.kod}}!"),
        "Hi Ali, +60123456789 VIP-7!"
    );
    assert_eq!(
        one("{{niche|umum}} {{niche}}.{{custom.none|a \\| b \\} c}}"),
        "umum .a | b } c"
    );
    assert_eq!(one("{{name|Cik}}"), "Ali");
    assert_eq!(
        one("{name} { NAME } {phone} {niche}{custom.kod}"),
        "Ali Ali +60123456789 VIP-7"
    );
}

#[test]
fn choices_nest_and_hold_fields() {
    assert_eq!(all("{a|b|}"), set(&["a", "b", ""]));
    assert_eq!(all("{Hi {{name}}|Hai {name}}!"), set(&["Hi Ali!", "Hai Ali!"]));
    assert_eq!(all("{a|{b|c} d}"), set(&["a", "b d", "c d"]));
    assert_eq!(all("{{a|b}|c}"), set(&["a", "b", "c"]));
    assert_eq!(all("{{{name}}|x}"), set(&["Ali", "x"]));
    assert_eq!(all("{x|{{name}}}"), set(&["Ali", "x"]));
    assert_eq!(all("{x|{{niche|y}}}"), set(&["x", "y"]));
}

#[test]
fn options_are_equally_likely() {
    let template = Template::parse("{a|b|c|d}").unwrap();
    let mut rng = Seed::from_number(3).rng(b"k", "test");
    let mut counts = BTreeMap::new();
    for _ in 0..4_000 {
        *counts
            .entry(template.evaluate(&values(), &mut rng).text)
            .or_insert(0u32) += 1;
    }
    assert!(
        counts.len() == 4 && counts.values().all(|count| (850..1_150).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn braces_without_a_bar_and_escaped_signs_are_literal() {
    for text in [
        "{hello}",
        "{ }",
        "a } b",
        "a | b",
        ":-{",
        "{{",
        "}}",
        "{\n{name",
        "{{name\n}}",
        "{{{{{{{{{{{{{{{{{{{{{{{{",
    ] {
        assert_eq!(one(text), text);
    }
    assert_eq!(one("\\{a\\|b\\} \\x \\"), "{a|b} \\x \\");
    assert_eq!(one("{{{name}}}"), "{Ali}");
    assert_eq!(
        all("{literal {a|b} braces}"),
        set(&["{literal a braces}", "{literal b braces}"])
    );
}

#[test]
fn line_breaks_are_made_one_before_anything_else() {
    assert_eq!(one("a\\nb<br>c%0A{{name}}{br}d"), "a\nb\nc\nAli\nd");
}

#[test]
fn a_merged_value_is_never_parsed() {
    assert_eq!(one("{{custom.odd}}"), "{{name}}|{a|b}\\n<br>");
    let evaluated = Template::parse("Hi {{custom.odd}} {{niche|x}}{{name}}").unwrap();
    let evaluated = evaluated.evaluate(&values(), &mut Seed::from_number(1).rng(b"", "test"));
    let merged: Vec<&str> = evaluated
        .merged
        .iter()
        .map(|span| &evaluated.text[span.clone()])
        .collect();
    assert_eq!(merged, ["{{name}}|{a|b}\\n<br>", "Ali"]);
}

#[test]
fn what_nobody_means_is_refused_with_field_and_line() {
    let error = |source: &str| Template::parse(source).unwrap_err();
    assert_eq!(
        error("a<br>b {{nama}}"),
        TemplateError::UnknownField {
            field: "nama".into(),
            line: 2
        }
    );
    assert_eq!(
        error("{{nama|x}}").to_string(),
        "line 1: unknown merge field {{nama}}; known are {{name}}, {{phone}}, {{niche}} and {{custom.key}}"
    );
    for source in [
        "{{}}",
        "{{custom.}}",
        "{{custom.a b}}",
        "{{a|b}}",
        "{{name.x}}",
        "{{é}}",
    ] {
        assert!(matches!(error(source), TemplateError::UnknownField { .. }), "{source}");
    }
    assert_eq!(
        error("{{name|Kak|Cik}}"),
        TemplateError::FallbackBar {
            field: "name".into(),
            line: 1
        }
    );
    assert_eq!(error("Hi {name|Cik}"), TemplateError::NameAsOption { line: 1 });
    assert_eq!(error("x\n{a|b"), TemplateError::UnclosedChoice { line: 2 });
    assert_eq!(error("{a|{b|c}"), TemplateError::UnclosedChoice { line: 1 });
}

#[test]
fn limits_hold_on_length_depth_and_options() {
    let limits = TemplateLimits {
        source_bytes_max: 40,
        depth_max: 2,
        options_max: 5,
    };
    let parse = |source: &str| Template::parse_within(source, &limits).map(drop);
    assert_eq!(
        parse(&"x".repeat(41)),
        Err(TemplateError::TooLong {
            bytes: 41,
            bytes_max: 40
        })
    );
    assert_eq!(parse("{a|{b|c}}"), Ok(()));
    assert_eq!(
        parse("{a|{b|{c|d}}}"),
        Err(TemplateError::TooDeep { line: 1, depth_max: 2 })
    );
    assert_eq!(parse("{a|b|c|d|e}"), Ok(()));
    assert_eq!(
        parse("{a|b|c}{d|e|f}"),
        Err(TemplateError::TooManyOptions { options_max: 5 })
    );
}

#[test]
fn a_hostile_text_of_full_length_is_parsed_in_linear_time() {
    for piece in ["{", "{{", "{a|", "}", "{{a", "\\{", "{{name|", "{}", "{ {a|b} ", "|"] {
        let source = piece.repeat(TEMPLATE_BYTES_MAX / piece.len());
        if let Ok(template) = Template::parse(&source) {
            template.evaluate(&values(), &mut Seed::from_number(1).rng(b"", "test"));
        }
    }
}

#[test]
fn debug_output_shows_neither_text_nor_values() {
    let template = Template::parse("secret {{name}}").unwrap();
    let evaluated = template.evaluate(&values(), &mut Seed::from_number(1).rng(b"", "test"));
    let debug = format!("{template:?} {evaluated:?} {:?}", values());
    assert!(
        !debug.contains("secret") && !debug.contains("Ali") && !debug.contains("6789"),
        "{debug}"
    );
}

/// Sources rich in the signs that mean something.
fn source() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "|",
        "\\",
        "{{",
        "}}",
        "{a|b}",
        "{{name}}",
        "{{niche|x}}",
        "{name}",
        "{{custom.kod}}",
        "\\n",
        "<br>",
        "%0A",
        "a",
        " ",
        "é",
        "\n",
        "🙂",
        "https://x.my/?a=",
    ]);
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_parsing_or_evaluation_panic(text in "\\PC*", source in source(), number: u64) {
        for source in [text, source] {
            if let Ok(template) = Template::parse(&source) {
                let evaluated = template.evaluate(&values(), &mut Seed::from_number(number).rng(b"", "test"));
                for span in evaluated.merged {
                    prop_assert!(evaluated.text.get(span).is_some());
                }
            }
        }
    }

    #[test]
    fn no_evaluation_is_longer_than_the_longest(source in source(), number: u64) {
        if let Ok(template) = Template::parse(&source) {
            let text = template.evaluate(&values(), &mut Seed::from_number(number).rng(b"", "test")).text;
            prop_assert!(text.chars().count() <= template.longest(&values()));
        }
    }

    #[test]
    fn a_value_stands_in_the_text_as_it_is(value in "[{}|\\\\a-z%0A<br> \n]{1,20}", number: u64) {
        let values = MergeValues { name: value.clone(), ..MergeValues::default() };
        let template = Template::parse("{x|y}<{{name|-}}>").unwrap();
        let text = template.evaluate(&values, &mut Seed::from_number(number).rng(b"", "test")).text;
        let expected = if value.trim().is_empty() { "-" } else { value.trim() };
        prop_assert_eq!(&text[1..], format!("<{expected}>"));
    }

    #[test]
    fn a_text_without_signs_is_given_back_as_it_is(text in "[^{}|\\\\\r%<\\[]{0,200}") {
        let evaluated = Template::parse(&text).unwrap().evaluate(&values(), &mut Seed::from_number(1).rng(b"", "test"));
        prop_assert_eq!(evaluated.text, text);
    }
}
