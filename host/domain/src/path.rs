//! Path of a state in its run: the steps from the root. The encoding sorts as
//! the steps do. So a database orders branches by comparing text, and all paths
//! below a place share its prefix.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ids::NodeIx;

/// The 62 digits of the encoding, in the order of their bytes.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The marks of long numbers, each with its count of digits. They sort after
/// every digit and before [`UNITE`]. A number below 62 is a single digit.
const LONG_NUMBER_MARKS: [(u8, usize); 3] = [(b'{', 2), (b'|', 3), (b'}', 6)];

/// The first byte of a unite's step; sorts after all outputs. No path has a
/// greater byte.
const UNITE: u8 = b'~';

/// The encoded sequence of (output index, edge index) from the root. A unite
/// continues the path of the execution whose branches it joins. It adds a step
/// of its own, so every path is unique in a run.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Path(String);

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The step to the child that an output creates along an edge.
    Child {
        /// The index of the output, from 0.
        output: u32,
        /// The index of the edge, from 0.
        edge: u32,
    },
    /// The step to a unite.
    Unite(NodeIx),
}

/// A text that is not a valid path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a path")]
pub struct BadPath(String);

impl Path {
    /// Returns the path of the root.
    pub fn root() -> Self {
        Path(String::new())
    }

    /// Decodes a path that a database stores.
    pub fn decode(text: &str) -> Result<Self, BadPath> {
        let path = Path(text.to_owned());
        match path.steps() {
            Some(_) => Ok(path),
            None => Err(BadPath(text.to_owned())),
        }
    }

    /// Returns the encoded text. Sorts by bytes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path of the child that `output` creates along `edge`.
    pub fn child(&self, output: u32, edge: u32) -> Self {
        let mut text = self.branch(output).0;
        push_number(&mut text, edge);
        Path(text)
    }

    /// Returns the common prefix of the paths of all states in the branch of
    /// `output`.
    pub fn branch(&self, output: u32) -> Self {
        let mut text = String::with_capacity(self.0.len() + 2);
        text.push_str(&self.0);
        push_number(&mut text, output);
        Path(text)
    }

    /// Returns the path of a unite of the execution at this path.
    pub fn unite(&self, unite: NodeIx) -> Self {
        let mut text = String::with_capacity(self.0.len() + 2);
        text.push_str(&self.0);
        text.push(char::from(UNITE));
        push_number(&mut text, unite.0);
        Path(text)
    }

    /// Returns the upper bound of the paths that begin with this one. The text
    /// sorts after all of them, and before any other path that sorts after this
    /// one.
    pub fn end(&self) -> String {
        format!("{}\u{7f}", self.0)
    }

    /// Returns the output of the execution at `above` in whose branch this path lies; `None` if
    /// no branch contains it.
    pub fn branch_below(&self, ancestor: &Path) -> Option<u32> {
        let rest = self.0.strip_prefix(ancestor.as_str())?;
        read_number(rest.as_bytes()).map(|(output, _)| output)
    }

    /// Returns the text of the path that this one continues, and the step from
    /// there; `None` for the root.
    pub fn last(&self) -> Option<(&str, Step)> {
        let mut rest = self.0.as_bytes();
        let mut last = None;
        while !rest.is_empty() {
            let parent_len = self.0.len() - rest.len();
            let (step, tail) = read_step(rest)?;
            (last, rest) = (Some((parent_len, step)), tail);
        }
        last.map(|(above, step)| (&self.0[..above], step))
    }

    /// Returns the steps; `None` if the text is not a valid path.
    pub fn steps(&self) -> Option<Vec<Step>> {
        let mut rest = self.0.as_bytes();
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let step;
            (step, rest) = read_step(rest)?;
            steps.push(step);
        }
        Some(steps)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Child { output, edge } => write!(f, "{output}.{edge}"),
            Step::Unite(unite) => write!(f, "u{}", unite.0),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.steps() {
            Some(steps) => {
                let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
                write!(f, "/{}", steps.join("/"))
            }
            None => f.write_str(&self.0),
        }
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn read_step(text: &[u8]) -> Option<(Step, &[u8])> {
    if let Some(rest) = text.strip_prefix(&[UNITE]) {
        let (unite, rest) = read_number(rest)?;
        return Some((Step::Unite(NodeIx(unite)), rest));
    }
    let (output, rest) = read_number(text)?;
    let (edge, rest) = read_number(rest)?;
    Some((Step::Child { output, edge }, rest))
}

fn push_number(text: &mut String, number: u32) {
    let digit = |n: u64| char::from(DIGITS[(n % 62) as usize]);
    let number = u64::from(number);
    if number < 62 {
        text.push(digit(number));
        return;
    }
    for (mark, width) in LONG_NUMBER_MARKS {
        if number < 62u64.pow(width as u32) {
            text.push(char::from(mark));
            text.extend((0..width as u32).rev().map(|power| digit(number / 62u64.pow(power))));
            return;
        }
    }
}

fn read_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digit = |byte: &u8| DIGITS.iter().position(|d| d == byte).map(|n| n as u64);
    let (first, rest) = text.split_first()?;
    if let Some(number) = digit(first) {
        return Some((number as u32, rest));
    }
    let (_, width) = LONG_NUMBER_MARKS.into_iter().find(|(mark, _)| mark == first)?;
    let (digits, rest) = rest.split_at_checked(width)?;
    let number = digits.iter().try_fold(0, |sum, byte| Some(sum * 62 + digit(byte)?))?;
    Some((u32::try_from(number).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(steps: &[(u32, u32)]) -> Path {
        steps.iter().fold(Path::root(), |path, &(output, edge)| path.child(output, edge))
    }

    proptest! {
        #[test]
        fn paths_sort_as_their_steps(
            a in proptest::collection::vec((0u32..300_000, 0u32..100), 0..5),
            b in proptest::collection::vec((0u32..300_000, 0u32..100), 0..5),
        ) {
            prop_assert_eq!(a.cmp(&b), path(&a).cmp(&path(&b)));
        }

        #[test]
        fn an_encoded_path_is_decoded(steps in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..5)) {
            let path = path(&steps).unite(NodeIx(3)).child(1, 2);
            prop_assert_eq!(Path::decode(path.as_str()), Ok(path.clone()));
            prop_assert!(path.as_str() < Path::root().end().as_str());
        }

        #[test]
        fn a_path_knows_its_last_step(steps in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..5)) {
            let ancestor = path(&steps);
            let child = ancestor.child(70, 3);
            let step = Step::Child { output: 70, edge: 3 };
            prop_assert_eq!(child.last(), Some((ancestor.as_str(), step)));
            let unite = ancestor.unite(NodeIx(64));
            prop_assert_eq!(unite.last(), Some((ancestor.as_str(), Step::Unite(NodeIx(64)))));
        }

        #[test]
        fn any_text_is_refused_or_kept(text in ".*") {
            if let Ok(path) = Path::decode(&text) {
                prop_assert_eq!(path.as_str(), text);
            }
        }
    }

    #[test]
    fn a_path_knows_its_branch() {
        let ancestor = path(&[(0, 0)]);
        assert_eq!(ancestor.child(70, 1).child(2, 0).branch_below(&ancestor), Some(70));
        assert_eq!(ancestor.unite(NodeIx(4)).branch_below(&ancestor), None);
        assert_eq!(ancestor.branch_below(&ancestor.child(1, 1)), None);
        assert!(ancestor.unite(NodeIx(0)) > ancestor.child(4_000_000, 0));
        assert_eq!(Path::root().last(), None);
    }
}
