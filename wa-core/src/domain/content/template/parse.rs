//! The parser, in three passes over the text: signs, pairs of braces, tree. None of them recurses.

use super::{CUSTOM_KEY_CHARS_MAX, Field, Node, TemplateError, TemplateLimits};
use crate::domain::content::line_break;

pub(super) fn parse(source: &str, limits: &TemplateLimits) -> Result<Vec<Node>, TemplateError> {
    if source.len() > limits.source_bytes_max {
        return Err(TemplateError::TooLong {
            bytes: source.len(),
            bytes_max: limits.source_bytes_max,
        });
    }
    let source = line_break::normalise(source);
    let mut signs = signs(&source)?;
    pair(&mut signs)?;
    build(signs, limits)
}

struct Sign<'a> {
    kind: Kind<'a>,
    line: usize,
}

enum Kind<'a> {
    Text(&'a str),
    Field(Field, String),
    /// A brace or bar, literal until the pairing finds that it belongs to a choice.
    Brace(Brace, Role),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Brace {
    Open,
    Bar,
    Close,
}

impl Brace {
    const fn text(self) -> &'static str {
        match self {
            Self::Open => "{",
            Self::Bar => "|",
            Self::Close => "}",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Literal,
    Choice,
}

fn is_sign(c: char) -> bool {
    matches!(c, '{' | '|' | '}')
}

fn signs(source: &str) -> Result<Vec<Sign<'_>>, TemplateError> {
    let mut signs = Vec::new();
    let mut line = 1;
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let (kind, len) = match c {
            '\\' if rest[1..].starts_with(is_sign) => (Kind::Text(&rest[1..2]), 2),
            '{' => match field(rest, line)? {
                Some((field, fallback, len)) => (Kind::Field(field, fallback), len),
                None => (Kind::Brace(Brace::Open, Role::Literal), 1),
            },
            '|' => (Kind::Brace(Brace::Bar, Role::Literal), 1),
            '}' => (Kind::Brace(Brace::Close, Role::Literal), 1),
            _ => {
                let after = c.len_utf8();
                let len = rest[after..]
                    .find(|c| c == '\\' || is_sign(c))
                    .map_or(rest.len(), |at| after + at);
                (Kind::Text(&rest[..len]), len)
            }
        };
        signs.push(Sign { kind, line });
        line += rest[..len].matches('\n').count();
        rest = &rest[len..];
    }
    Ok(signs)
}

/// The merge field that `text`, which begins with a brace, begins with, and its length in bytes.
fn field(text: &str, line: usize) -> Result<Option<(Field, String, usize)>, TemplateError> {
    if let Some(body) = double_braced(text) {
        let (name, fallback) = match split_at_bar(body) {
            Some((name, fallback)) => (name, Some(fallback)),
            None => (body, None),
        };
        let written = || name.trim().chars().take(CUSTOM_KEY_CHARS_MAX).collect::<String>();
        let field = known(name).ok_or_else(|| TemplateError::UnknownField { field: written(), line })?;
        let fallback = fallback.unwrap_or_default();
        if split_at_bar(fallback).is_some() {
            return Err(TemplateError::FallbackBar { field: written(), line });
        }
        return Ok(Some((field, unescape(fallback), body.len() + 4)));
    }
    let alias = text[1..]
        .find(|c| is_sign(c) || c == '\n')
        .filter(|at| text[1 + at..].starts_with('}'));
    Ok(alias.and_then(|len| Some((known(&text[1..=len])?, String::new(), len + 2))))
}

/// What stands between `{{` and the next `}}`, unless another brace or a line break comes first.
fn double_braced(text: &str) -> Option<&str> {
    let body = text.strip_prefix("{{")?;
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            '{' | '}' | '|' if escaped => escaped = false,
            '}' => return body[at..].starts_with("}}").then(|| &body[..at]),
            '{' | '\n' => return None,
            c => escaped = c == '\\',
        }
    }
    None
}

fn split_at_bar(text: &str) -> Option<(&str, &str)> {
    let at = text
        .match_indices('|')
        .map(|(at, _)| at)
        .find(|at| !text[..*at].ends_with('\\'))?;
    Some((&text[..at], &text[at + 1..]))
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\\' && chars.peek().is_some_and(|next| is_sign(*next)) {
            continue;
        }
        out.push(c);
    }
    out
}

fn known(name: &str) -> Option<Field> {
    let name = name.trim();
    if name.eq_ignore_ascii_case("name") {
        return Some(Field::Name);
    }
    if name.eq_ignore_ascii_case("phone") {
        return Some(Field::Phone);
    }
    if name.eq_ignore_ascii_case("niche") {
        return Some(Field::Niche);
    }
    let prefix = "custom.";
    let key = name
        .get(prefix.len()..)
        .filter(|_| name[..prefix.len()].eq_ignore_ascii_case(prefix))?;
    let well_formed = !key.is_empty()
        && key.chars().count() <= CUSTOM_KEY_CHARS_MAX
        && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    well_formed.then(|| Field::Custom(key.to_owned()))
}

/// Finds the braces that enclose a bar, and gives them and their bars the role of a choice.
fn pair(signs: &mut [Sign<'_>]) -> Result<(), TemplateError> {
    let mut open: Vec<(usize, Vec<usize>)> = Vec::new();
    for at in 0..signs.len() {
        let Kind::Brace(brace, _) = signs[at].kind else {
            continue;
        };
        match brace {
            Brace::Open => open.push((at, Vec::new())),
            Brace::Bar => {
                if let Some((_, bars)) = open.last_mut() {
                    bars.push(at);
                }
            }
            Brace::Close => {
                let Some((start, bars)) = open.pop() else { continue };
                let Some(first) = bars.first() else { continue };
                if let [
                    Sign {
                        kind: Kind::Text(word),
                        line,
                    },
                ] = &signs[start + 1..*first]
                    && word.trim().eq_ignore_ascii_case("name")
                {
                    return Err(TemplateError::NameAsOption { line: *line });
                }
                for part in bars.into_iter().chain([start, at]) {
                    if let Kind::Brace(_, role) = &mut signs[part].kind {
                        *role = Role::Choice;
                    }
                }
            }
        }
    }
    match open.iter().find(|(_, bars)| !bars.is_empty()) {
        Some((start, _)) => Err(TemplateError::UnclosedChoice {
            line: signs[*start].line,
        }),
        None => Ok(()),
    }
}

/// A sequence of nodes under construction; adjacent texts become one.
#[derive(Default)]
struct Nodes(Vec<Node>);

impl Nodes {
    fn text(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Node::Text(before)) => before.push_str(text),
            _ => self.0.push(Node::Text(text.to_owned())),
        }
    }
}

fn build(signs: Vec<Sign<'_>>, limits: &TemplateLimits) -> Result<Vec<Node>, TemplateError> {
    let mut current = Nodes::default();
    // Of each choice that is open: what stands before it, and its options so far.
    let mut outer: Vec<(Nodes, Vec<Vec<Node>>)> = Vec::new();
    let mut options_count = 0;
    for Sign { kind, line } in signs {
        match kind {
            Kind::Text(text) => current.text(text),
            Kind::Field(field, fallback) => current.0.push(Node::Field { field, fallback }),
            Kind::Brace(Brace::Open, Role::Choice) => {
                if outer.len() >= limits.depth_max {
                    return Err(TemplateError::TooDeep {
                        line,
                        depth_max: limits.depth_max,
                    });
                }
                outer.push((std::mem::take(&mut current), Vec::new()));
            }
            Kind::Brace(brace, Role::Choice) => {
                options_count += 1;
                if options_count > limits.options_max {
                    return Err(TemplateError::TooManyOptions {
                        options_max: limits.options_max,
                    });
                }
                let (before, mut options) = outer.pop().expect("a choice was opened before its bars and its end");
                options.push(std::mem::take(&mut current).0);
                if brace == Brace::Bar {
                    outer.push((before, options));
                } else {
                    current = before;
                    current.0.push(Node::Choice(options));
                }
            }
            Kind::Brace(brace, Role::Literal) => current.text(brace.text()),
        }
    }
    Ok(current.0)
}
