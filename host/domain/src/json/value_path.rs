//! The path of a value in its text. It lives on the stack beside the call that reads the value,
//! so that paths cost nothing until there is a problem.

use crate::graph::problems::{element, member};

/// The longest path of a problem, in bytes. A path ends after a whole step: messages are cut,
/// and a cut must not fall into a secret.
const MAX_PATH_BYTES: usize = 200;

/// The longest key that is shown, in bytes. A longer key is not shown at all:
/// the beginning of a secret would not be recognised as one.
const MAX_KEY_BYTES: usize = 64;

/// A path to a value: its steps, the last one first.
#[derive(Clone, Copy)]
pub(super) enum ValuePath<'a> {
    /// The whole text.
    Root,
    /// A member of an object.
    Member(&'a ValuePath<'a>, &'a str),
    /// An element of an array.
    Element(&'a ValuePath<'a>, usize),
}

impl ValuePath<'_> {
    /// Formats the path as a JSON path: `$.rows[2].id`.
    pub(super) fn path(&self) -> String {
        let mut steps = Vec::new();
        let mut path = self;
        while let ValuePath::Member(parent, _) | ValuePath::Element(parent, _) = path {
            steps.push(path);
            path = parent;
        }
        let mut path = "$".to_owned();
        for step in steps.into_iter().rev() {
            let extended = match step {
                ValuePath::Root => continue,
                ValuePath::Element(_, index) => element(&path, *index),
                ValuePath::Member(_, key) if key.len() > MAX_KEY_BYTES => {
                    format!("{path}[a key of {} bytes]", key.len())
                }
                ValuePath::Member(_, key) => member(&path, key),
            };
            if extended.len() > MAX_PATH_BYTES {
                path.push('…');
                break;
            }
            path = extended;
        }
        path
    }
}

/// Quotes a key for a message, or gives its length if it is long.
pub(super) fn display_key(key: &str) -> String {
    if key.len() <= MAX_KEY_BYTES { format!("{key:?}") } else { format!("of {} bytes", key.len()) }
}
