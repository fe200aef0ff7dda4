//! What a check has found: violations, the first of each kind, and how many
//! more there are. Not here: words for a terminal.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;

/// So many violations of one kind are kept; the rest are counted.
pub const SHOWN: u64 = 100;

/// What is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A value that no transition writes.
    Value,
    /// A row that belongs to nothing, or names what is not there.
    Stray,
    /// A state that is SUCCESS has all its children and unites.
    Children,
    /// A state has the parent that its path says, and that is SUCCESS.
    Parent,
    /// A state has as many outputs as it says.
    Outputs,
    /// A path is given once in a run.
    Once,
    /// A unite knows what it joins, and went on when it was to.
    Unite,
    /// A state that is held has a holder and a fence.
    Claim,
    /// A run is over when its states are, and not before.
    End,
    /// Counts that decide equal what is counted.
    Count,
    /// Numbers for people equal what is counted.
    Tally,
    /// What the run's store holds is as the run says.
    Store,
    /// A state is out of the way of claims while its run is paused, and only
    /// then.
    Parked,
    /// Everything of a run is of one namespace.
    Namespace,
    /// A state refers to outputs on its own branch and to the unites around it.
    Reference,
    /// A number that is given out next has not been given out.
    Number,
}

impl Rule {
    /// The number of the invariant in ARCHITECTURE.md that it is of, if of one.
    pub fn invariant(self) -> Option<u8> {
        match self {
            Rule::Children | Rule::Parent | Rule::Outputs => Some(1),
            Rule::Once | Rule::Unite => Some(2),
            Rule::Claim => Some(3),
            Rule::End => Some(4),
            Rule::Count => Some(5),
            Rule::Namespace | Rule::Reference => Some(8),
            Rule::Value | Rule::Stray | Rule::Tally | Rule::Store | Rule::Parked | Rule::Number => {
                None
            }
        }
    }
}

/// What is broken, and where: violations that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Kind {
    /// What is broken.
    pub rule: Rule,
    /// The table.
    pub table: &'static str,
    /// The column that says otherwise.
    pub column: &'static str,
}

/// A row that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What is broken, and where.
    #[serde(flatten)]
    pub kind: Kind,
    /// The number of the invariant in ARCHITECTURE.md, if it is one.
    pub invariant: Option<u8>,
    /// The key of the row; parts of one are parted by `/`.
    pub row: String,
    /// The id of the run that it is of, if it is known.
    pub run: Option<String>,
    /// What is the matter, in words that follow the name of the row.
    pub message: String,
}

/// Violations of one kind beyond those that are reported one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct More {
    /// What is broken, and where.
    #[serde(flatten)]
    pub kind: Kind,
    /// How many more.
    pub count: u64,
}

/// How many rows were looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Revisions of graphs.
    pub revisions: u64,
    /// Runs.
    pub runs: u64,
    /// States.
    pub states: u64,
    /// States that are unites.
    pub unites: u64,
    /// Outputs.
    pub outputs: u64,
    /// Attempts.
    pub attempts: u64,
    /// Entries of the stores of runs.
    pub entries: u64,
}

/// What a check came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How many rows were looked at.
    pub checked: Checked,
    /// How many violations there are.
    pub count: u64,
    /// The first of each kind, alike beside alike.
    pub violations: Vec<Violation>,
    /// How many more of which kind.
    pub more: Vec<More>,
}

/// A report that is being written.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub checked: Checked,
    kinds: BTreeMap<Kind, Found>,
}

#[derive(Debug, Default)]
struct Found {
    count: u64,
    first: Vec<Violation>,
}

impl Findings {
    /// Notes a violation.
    pub(super) fn note(
        &mut self,
        kind: Kind,
        row: impl Display,
        run: Option<&str>,
        message: impl Display,
    ) {
        let found = self.kinds.entry(kind).or_default();
        found.count += 1;
        if found.count <= SHOWN {
            found.first.push(Violation {
                kind,
                invariant: kind.rule.invariant(),
                row: row.to_string(),
                run: run.map(str::to_owned),
                message: message.to_string(),
            });
        }
    }

    pub(super) fn report(self) -> Report {
        let mut report = Report { checked: self.checked, ..Report::default() };
        for (kind, found) in self.kinds {
            report.count += found.count;
            if found.count > SHOWN {
                report.more.push(More { kind, count: found.count - SHOWN });
            }
            report.violations.extend(found.first);
        }
        report
    }
}

/// `kind!(Children, state.path)`.
macro_rules! kind {
    ($rule:ident, $table:ident . $column:ident) => {
        $crate::check::report::Kind {
            rule: $crate::check::report::Rule::$rule,
            table: stringify!($table),
            column: stringify!($column),
        }
    };
}
pub(super) use kind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_each_kind_are_shown_and_the_rest_counted() {
        let mut findings = Findings::default();
        for row in 0..SHOWN + 7 {
            findings.note(kind!(Children, state.path), row, None, "lacks a child");
        }
        findings.note(kind!(Value, run.status), 1, Some("id"), "is none");
        let report = findings.report();
        assert_eq!(report.count, SHOWN + 8);
        assert_eq!(report.violations.len() as u64, SHOWN + 1);
        assert_eq!(report.more, [More { kind: kind!(Children, state.path), count: 7 }]);
        assert_eq!(report.violations[0].message, "is none", "alike stand beside alike");
    }
}
