//! The report of a check: violations, the first of each kind, and how many more there are. Not
//! here: words for a terminal.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde::Serialize;

/// Maximum number of violations kept of one kind; the rest are only counted.
pub const MAX_REPORTED_PER_KIND: u64 = 100;

/// A rule that a violation breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// A column has only values that some transition writes.
    Value,
    /// A row belongs to an existing row, and names only existing rows.
    Orphan,
    /// A state that is SUCCESS has all its children and unites.
    Children,
    /// A state has the parent that its path names, and that parent is SUCCESS.
    Parent,
    /// A state has as many outputs as its row says.
    Outputs,
    /// A path exists once in a run.
    Once,
    /// A unite has the right scope, and continued in time.
    Unite,
    /// A claimed state has a session and a fence.
    Claim,
    /// A run is over exactly when its states are.
    End,
    /// Counts that decisions depend on equal the counted rows.
    Count,
    /// Counts shown to users equal the counted rows.
    Total,
    /// The contents of the run's store match the run's row.
    Store,
    /// A state is held back (kept from claims) exactly while its run is paused.
    HeldBack,
    /// All rows of a run have one namespace.
    Namespace,
    /// A state refers to outputs on its own branch and to the unites around it.
    Reference,
    /// The next number of a counter is not in use.
    Number,
}

impl Rule {
    /// Returns the number of the rule's invariant in ARCHITECTURE.md, if it belongs to one.
    pub fn invariant(self) -> Option<u8> {
        match self {
            Rule::Children | Rule::Parent | Rule::Outputs => Some(1),
            Rule::Once | Rule::Unite => Some(2),
            Rule::Claim => Some(3),
            Rule::End => Some(4),
            Rule::Count => Some(5),
            Rule::Namespace | Rule::Reference => Some(8),
            Rule::Value
            | Rule::Orphan
            | Rule::Total
            | Rule::Store
            | Rule::HeldBack
            | Rule::Number => None,
        }
    }
}

/// The kind of a violation: its rule, table and column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Kind {
    /// The rule that the row violates.
    pub rule: Rule,
    /// The table of the row.
    pub table: &'static str,
    /// The column that contradicts the others.
    pub column: &'static str,
}

/// A row that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The kind: rule, table and column.
    #[serde(flatten)]
    pub kind: Kind,
    /// The number of the invariant in ARCHITECTURE.md, if the rule belongs to one.
    pub invariant: Option<u8>,
    /// The key of the row, with its parts separated by `/`.
    pub row: String,
    /// The id of the row's run, if it is known.
    pub run: Option<String>,
    /// The message, in words that follow the name of the row.
    pub message: String,
}

/// Violations of one kind beyond those reported one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct More {
    /// The kind: rule, table and column.
    #[serde(flatten)]
    pub kind: Kind,
    /// The number of further violations.
    pub count: u64,
}

/// Counts of the checked rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CheckedRows {
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

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Counts of the checked rows.
    pub checked: CheckedRows,
    /// The number of violations.
    pub count: u64,
    /// The first violations of each kind, grouped by kind.
    pub violations: Vec<Violation>,
    /// Further violations by kind.
    pub more: Vec<More>,
}

/// A report that is being written.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub checked: CheckedRows,
    kinds: BTreeMap<Kind, Found>,
}

#[derive(Debug, Default)]
struct Found {
    count: u64,
    first: Vec<Violation>,
}

impl Findings {
    /// Counts a violation, and keeps its row if it is among the first of its kind.
    pub(super) fn add(
        &mut self,
        kind: Kind,
        row: impl Display,
        run: Option<&str>,
        message: impl Display,
    ) {
        let found = self.kinds.entry(kind).or_default();
        found.count += 1;
        if found.count <= MAX_REPORTED_PER_KIND {
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
            if found.count > MAX_REPORTED_PER_KIND {
                report.more.push(More { kind, count: found.count - MAX_REPORTED_PER_KIND });
            }
            report.violations.extend(found.first);
        }
        report
    }
}

/// Creates a [`Kind`]: `kind!(Children, state.path)`.
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
    fn violations_beyond_the_first_are_counted() {
        let mut findings = Findings::default();
        for row in 0..MAX_REPORTED_PER_KIND + 7 {
            findings.add(kind!(Children, state.path), row, None, "lacks a child");
        }
        findings.add(kind!(Value, run.status), 1, Some("id"), "is none");
        let report = findings.report();
        assert_eq!(report.count, MAX_REPORTED_PER_KIND + 8);
        assert_eq!(report.violations.len() as u64, MAX_REPORTED_PER_KIND + 1);
        assert_eq!(report.more, [More { kind: kind!(Children, state.path), count: 7 }]);
        assert_eq!(report.violations[0].message, "is none", "violations of one kind are together");
    }
}
