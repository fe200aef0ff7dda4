//! Templates: JSON whose strings may contain placeholders, such as `${{
//! splitter.outputs.chunk }}`.
//!
//! Not here: the source of the values, and whether a node may refer to them;
//! see [`crate::graph`].

use std::fmt;

use serde_json::{Map, Value};

use crate::graph::problems::{element, member, nearest, quoted, within_depth};
use crate::ids::Name;

/// The deepest nesting of a template, in levels.
pub const MAX_DEPTH: usize = 64;

/// The maximum number of fields in the path of one placeholder.
pub const MAX_PATH: usize = 64;

const OPEN: &str = "${{";
const CLOSE: &str = "}}";
const ESCAPED: &str = "$${{";

/// The reference that a placeholder makes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Placeholder {
    /// `identifier.outputs`, `identifier.outputs.field`, and deeper.
    Output {
        /// The node that returns the output.
        identifier: Name,
        /// The fields down to the value; empty for the whole output. Numbers
        /// are array indices.
        path: Vec<String>,
    },
    /// `store.key`
    Store {
        /// The key of the run's store.
        key: String,
    },
    /// `unite.branches`, and deeper.
    Branches {
        /// The fields below the branches.
        path: Vec<String>,
    },
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (root, path) = match self {
            Placeholder::Output { identifier, path } => (format!("{identifier}.outputs"), path),
            Placeholder::Store { key } => return write!(f, "{OPEN} store.{key} {CLOSE}"),
            Placeholder::Branches { path } => ("unite.branches".to_owned(), path),
        };
        write!(f, "{OPEN} {root}")?;
        path.iter().try_for_each(|field| write!(f, ".{field}"))?;
        write!(f, " {CLOSE}")
    }
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Piece);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    /// JSON without any placeholder, escapes resolved.
    Literal(Value),
    /// A string that is one placeholder: replaced by the value as it is.
    Whole(Placeholder),
    /// A string that contains placeholders.
    Text(Vec<Part>),
    Array(Vec<Piece>),
    Object(Vec<(String, Piece)>),
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Placeholder(Placeholder),
}

/// A mistake in a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct TemplateError {
    /// The JSON path of the mistake, which continues the path given to
    /// [`Template::parse`].
    pub path: String,
    /// The mistake, with its position in the string.
    pub message: String,
}

/// The reason why a template cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RenderError {
    /// The message, which names the placeholder.
    pub message: String,
}

impl RenderError {
    /// Creates the error of a placeholder without a value.
    pub fn new(placeholder: &Placeholder, reason: impl fmt::Display) -> Self {
        RenderError { message: format!("{placeholder} has no value: {reason}") }
    }
}

/// Returns the value at the end of a path of fields; numbers are array indices.
pub fn lookup_path<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, field| match value {
        Value::Object(map) => map.get(field),
        Value::Array(list) => list.get(element_index(field)?),
        _ => None,
    })
}

/// Parses a field as an array index. Each index has one spelling: `7`, and not
/// `07`.
pub fn element_index(field: &str) -> Option<usize> {
    let index: usize = field.parse().ok()?;
    let is_plain = field == "0" || field.starts_with(|c: char| matches!(c, '1'..='9'));
    is_plain.then_some(index)
}

impl Template {
    /// Parses a JSON value at `path` as a template; returns every mistake in
    /// it.
    pub fn parse(value: &Value, path: &str) -> Result<Template, Vec<TemplateError>> {
        if !within_depth(value, MAX_DEPTH) {
            let message = format!("this is nested more than {MAX_DEPTH} levels deep");
            return Err(vec![TemplateError { path: path.to_owned(), message }]);
        }
        let mut errors = Vec::new();
        let piece = parse_piece(value, path, &mut errors);
        if errors.is_empty() { Ok(Template(piece)) } else { Err(errors) }
    }

    /// Creates a template that renders as exactly this value, placeholders or
    /// not.
    pub fn literal(value: Value) -> Template {
        Template(Piece::Literal(value))
    }

    /// Returns the value, if the template has no placeholder.
    pub fn as_literal(&self) -> Option<&Value> {
        match &self.0 {
            Piece::Literal(value) => Some(value),
            _ => None,
        }
    }

    /// Iterates over every placeholder, in the order of the text, with
    /// repetitions.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        let mut found = Vec::new();
        collect(&self.0, &mut found);
        found.into_iter()
    }

    /// Renders the JSON, with every placeholder replaced by the value that
    /// `lookup` returns.
    ///
    /// The lookup bounds the size of the result: each value that it returns is
    /// inserted once.
    ///
    /// # Errors
    /// The first error of `lookup`.
    pub fn render(
        &self,
        mut lookup: impl FnMut(&Placeholder) -> Result<Value, RenderError>,
    ) -> Result<Value, RenderError> {
        render_piece(&self.0, &mut lookup)
    }

    /// Writes the template as JSON, from which it can be parsed again.
    pub fn to_json(&self) -> Value {
        piece_to_json(&self.0)
    }
}

fn parse_piece(value: &Value, path: &str, errors: &mut Vec<TemplateError>) -> Piece {
    let piece = match value {
        Value::String(text) => {
            return parse_text(text).unwrap_or_else(|message| {
                errors.push(TemplateError { path: path.to_owned(), message });
                Piece::Literal(Value::Null)
            });
        }
        Value::Array(list) => {
            let parse = |(at, value)| parse_piece(value, &element(path, at), errors);
            Piece::Array(list.iter().enumerate().map(parse).collect())
        }
        Value::Object(map) => {
            let parse = |(key, value): (&String, &Value)| {
                let path = member(path, key);
                if key.contains(OPEN) {
                    let message = "a key cannot hold a placeholder; only values can".to_owned();
                    errors.push(TemplateError { path: path.clone(), message });
                }
                (key.clone(), parse_piece(value, &path, errors))
            };
            Piece::Object(map.iter().map(parse).collect())
        }
        scalar => return Piece::Literal(scalar.clone()),
    };
    simplify(piece)
}

/// Turns a container of literals into a literal.
fn simplify(piece: Piece) -> Piece {
    let literal = |piece: &Piece| matches!(piece, Piece::Literal(_));
    let value = |piece| if let Piece::Literal(value) = piece { value } else { Value::Null };
    match piece {
        Piece::Array(list) if list.iter().all(literal) => {
            Piece::Literal(Value::Array(list.into_iter().map(value).collect()))
        }
        Piece::Object(map) if map.iter().all(|(_, piece)| literal(piece)) => {
            let map = map.into_iter().map(|(key, piece)| (key, value(piece)));
            Piece::Literal(Value::Object(map.collect()))
        }
        piece => piece,
    }
}

fn parse_text(text: &str) -> Result<Piece, String> {
    let mut parts = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        plain.push_str(&rest[..dollar]);
        rest = &rest[dollar..];
        if let Some(after) = rest.strip_prefix(ESCAPED) {
            plain.push_str(OPEN);
            rest = after;
        } else if let Some(after) = rest.strip_prefix(OPEN) {
            let position = || text[..text.len() - rest.len()].chars().count() + 1;
            let Some((inner, after)) = after.split_once(CLOSE) else {
                return Err(format!(
                    "the placeholder at character {} is not closed; end it with \"{CLOSE}\", or \
                     write \"{ESCAPED}\" for the text \"{OPEN}\"",
                    position()
                ));
            };
            let placeholder = parse_placeholder(inner.trim())
                .map_err(|error| format!("the placeholder at character {}: {error}", position()))?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Placeholder(placeholder));
            rest = after;
        } else {
            plain.push('$');
            rest = &rest[1..];
        }
    }
    plain.push_str(rest);
    Ok(text_piece(parts, plain))
}

fn text_piece(mut parts: Vec<Part>, tail: String) -> Piece {
    if parts.is_empty() {
        return Piece::Literal(Value::String(tail));
    }
    if !tail.is_empty() {
        parts.push(Part::Text(tail));
    }
    match parts.as_slice() {
        [Part::Placeholder(placeholder)] => Piece::Whole(placeholder.clone()),
        _ => Piece::Text(parts),
    }
}

fn parse_placeholder(inner: &str) -> Result<Placeholder, String> {
    if inner.is_empty() {
        return Err("it is empty; write for example ${{ identifier.outputs.field }}".to_owned());
    }
    let mut fields = inner.split('.').map(str::to_owned);
    let first = fields.next().unwrap_or_default();
    let path: Vec<String> = fields.collect();
    let is_unquotable = |field: &String| {
        field.is_empty()
            || field.trim() != field
            || field.contains(|c: char| c.is_control() || c == '{' || c == '}')
    };
    if let Some(odd) = path.iter().find(|field| is_unquotable(field)) {
        return Err(if odd.is_empty() {
            format!("{} has an empty field between its dots", quoted(inner))
        } else {
            format!("{} cannot be a field", quoted(odd))
        });
    }
    if path.len() > MAX_PATH {
        return Err(format!("it goes more than {MAX_PATH} fields deep"));
    }
    match first.as_str() {
        "store" => parse_store(path),
        "unite" => parse_unite(path),
        _ => parse_output(&first, path),
    }
}

fn parse_store(mut path: Vec<String>) -> Result<Placeholder, String> {
    match (path.pop(), path.is_empty()) {
        (Some(key), true) => match crate::journal::check_key(&key) {
            Ok(()) => Ok(Placeholder::Store { key }),
            Err(error) => Err(error.to_string()),
        },
        (Some(_), false) => Err("store values are strings; nothing lies below a key".to_owned()),
        (None, _) => Err("name a key: ${{ store.key }}".to_owned()),
    }
}

fn parse_unite(mut path: Vec<String>) -> Result<Placeholder, String> {
    if path.first().is_none_or(|field| field != "branches") {
        return Err("the one thing to be had from \"unite\" is ${{ unite.branches }}".to_owned());
    }
    path.remove(0);
    Ok(Placeholder::Branches { path })
}

fn parse_output(first: &str, mut path: Vec<String>) -> Result<Placeholder, String> {
    let Ok(identifier) = first.parse::<Name>() else {
        return Err(format!(
            "{} cannot be the identifier of a node; write ${{{{ identifier.outputs.field }}}}, \
             ${{{{ store.key }}}} or ${{{{ unite.branches }}}}",
            quoted(first)
        ));
    };
    match path.first().map(String::as_str) {
        Some("outputs") => {
            path.remove(0);
            Ok(Placeholder::Output { identifier, path })
        }
        other => {
            let root = nearest(first, ["store", "unite"]).filter(|_| path.len() == 1);
            let root = root.map_or_else(String::new, |root| format!("; or did you mean {root:?}?"));
            let found = other.map_or_else(|| "nothing".to_owned(), quoted);
            Err(format!(
                "after the identifier comes \".outputs.\" and a field, as in \
                 ${{{{ {identifier}.outputs.field }}}}, but {found} was found{root}"
            ))
        }
    }
}

fn collect<'a>(piece: &'a Piece, found: &mut Vec<&'a Placeholder>) {
    match piece {
        Piece::Literal(_) => {}
        Piece::Whole(placeholder) => found.push(placeholder),
        Piece::Text(parts) => found.extend(parts.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Placeholder(placeholder) => Some(placeholder),
        })),
        Piece::Array(list) => list.iter().for_each(|piece| collect(piece, found)),
        Piece::Object(map) => map.iter().for_each(|(_, piece)| collect(piece, found)),
    }
}

fn render_piece(
    piece: &Piece,
    lookup: &mut impl FnMut(&Placeholder) -> Result<Value, RenderError>,
) -> Result<Value, RenderError> {
    Ok(match piece {
        Piece::Literal(value) => value.clone(),
        Piece::Whole(placeholder) => lookup(placeholder)?,
        Piece::Text(parts) => {
            let mut text = String::new();
            for part in parts {
                match part {
                    Part::Text(plain) => text.push_str(plain),
                    Part::Placeholder(placeholder) => match lookup(placeholder)? {
                        Value::String(value) => text.push_str(&value),
                        value => text.push_str(&value.to_string()),
                    },
                }
            }
            Value::String(text)
        }
        Piece::Array(list) => {
            let list: Result<_, _> = list.iter().map(|piece| render_piece(piece, lookup)).collect();
            Value::Array(list?)
        }
        Piece::Object(map) => {
            let render =
                |(key, piece): &(String, Piece)| Ok((key.clone(), render_piece(piece, lookup)?));
            Value::Object(map.iter().map(render).collect::<Result<Map<_, _>, _>>()?)
        }
    })
}

fn piece_to_json(piece: &Piece) -> Value {
    match piece {
        Piece::Literal(value) => escaped(value),
        Piece::Whole(placeholder) => Value::String(placeholder.to_string()),
        Piece::Text(parts) => Value::String(
            parts
                .iter()
                .map(|part| match part {
                    Part::Text(plain) => escape(plain),
                    Part::Placeholder(placeholder) => placeholder.to_string(),
                })
                .collect(),
        ),
        Piece::Array(list) => Value::Array(list.iter().map(piece_to_json).collect()),
        Piece::Object(map) => Value::Object(
            map.iter().map(|(key, piece)| (key.clone(), piece_to_json(piece))).collect(),
        ),
    }
}

fn escape(text: &str) -> String {
    text.replace(OPEN, ESCAPED)
}

fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(escape(text)),
        Value::Array(list) => Value::Array(list.iter().map(escaped).collect()),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), escaped(value))).collect())
        }
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests;
