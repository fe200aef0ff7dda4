//! Corruption: the check reports each corrupted row, and no other.

use std::cell::RefCell;
use std::collections::BTreeMap;

use exosphere_domain::ids::Digest;
use exosphere_domain::node::NodeDescription;
use exosphere_store::{NewPlugin, Report};
use serde_json::json;

use crate::corruption_cases::{ALL, CHILDREN, COUNTS, Case, NAMESPACES, TYPES, UNITES, VALUES};
use crate::harness::{Harness, Kind, Run, TestDatabase};
use crate::runs;

#[tokio::test]
async fn corrupted_sqlite_rows_are_reported() {
    let (base, runs) = base(Kind::Sqlite, "base").await;
    let labels = Labels::new(&base, &runs);
    let mut mismatches = Vec::new();
    for case in ALL.into_iter().flatten().chain(TYPES) {
        mismatches.extend(difference(&base.copy("copy"), &labels, case).await);
    }
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
}

#[tokio::test]
async fn corrupted_postgres_rows_are_reported() {
    let (base, runs) = base(Kind::Postgres, "tampered").await;
    base.drop_constraints();
    base.save();
    assert_eq!(base.check().await.violations, []);
    let labels = Labels::new(&base, &runs);
    let mut mismatches = Vec::new();
    for case in ALL.into_iter().flatten() {
        mismatches.extend(difference(&base, &labels, case).await);
        base.restore();
    }
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
    assert_eq!(base.check().await.violations, []);
}

/// The report shows the first violations of a kind, and counts all.
#[tokio::test]
async fn repeated_violations_are_counted() {
    let (base, runs) = base(Kind::Sqlite, "many").await;
    let labels = Labels::new(&base, &runs);
    let copy = base.copy("much");
    copy.tamper(&labels.fill("DELETE FROM state WHERE run = <wide> AND node = 2"));
    let report = copy.check().await;
    let orphans = report.more.iter().find(|more| more.kind.table == "output").unwrap();
    assert_eq!(orphans.count, 50, "150 states had an output each");
    let state_violations: Vec<_> =
        report.violations.iter().filter(|v| v.kind.table == "state").collect();
    assert_eq!(state_violations.len(), 1, "{state_violations:?}");
    assert!(state_violations[0].message.contains("150 children in a row"), "{state_violations:?}");
    assert_eq!(state_violations[0].row, labels.fill("<wide:00>"));
    assert_eq!(report.count, report.violations.len() as u64 + 50);
}

#[tokio::test]
async fn messages_name_the_fault_and_place() {
    let (base, runs) = base(Kind::Sqlite, "words").await;
    let labels = Labels::new(&base, &runs);
    let expected = [
        (CHILDREN[4].0, "is SUCCESS and lacks the child X at /0.0/3.0"),
        (COUNTS[0].0, "is 9, its members count 2"),
        (CHILDREN[14].0, "is /0.0/0.0, and its parent, state <fan:00>, is PRUNED"),
        (UNITES[7].0, "is SUCCESS, and by its counts it was to be blocked"),
        (NAMESPACES[5].0, "names state <open:00>, and the U above is <fan:00>"),
        (VALUES[0].0, "is \"DONE\", which is not a value that exosphere writes"),
    ];
    for (sql, expected) in expected {
        let copy = base.copy("words");
        copy.tamper(&labels.fill(sql));
        let report = copy.check().await;
        let expected = labels.fill(expected);
        let found = report.violations.iter().find(|violation| violation.message == expected);
        let found = found.unwrap_or_else(|| panic!("{expected}: {:#?}", report.violations));
        assert!(runs.values().any(|run| Some(run.info.id.to_string()) == found.run));
    }
}

async fn base(kind: Kind, name: &str) -> (TestDatabase, BTreeMap<&'static str, Run>) {
    let database = TestDatabase::new(kind, name);
    let mut harness = Harness::new(&database).await;
    let plugin = NewPlugin {
        namespace: "n".parse().unwrap(),
        name: "p".parse().unwrap(),
        version: "1".into(),
        digest: Digest::from_content(b"wasm"),
        bytes: b"wasm".to_vec(),
        nodes: vec![NodeDescription {
            name: "echo".parse().unwrap(),
            description: String::new(),
            inputs: json!({}),
            outputs: json!({}),
            secrets: Vec::new(),
        }],
        imports: Vec::new(),
        compile_ms: 1,
    };
    harness.store.push_plugin(plugin, 1).await.unwrap();
    let runs = runs::all(&mut harness, &database).await;
    harness.close().await;
    (database, runs)
}

/// Returns the violations that were expected and not found, or found and not expected.
async fn difference(
    database: &TestDatabase,
    labels: &Labels<'_>,
    Case(sql, expected): &Case,
) -> Option<String> {
    let expected: Vec<_> = expected.iter().map(|expected| labels.fill(expected)).collect();
    database.tamper(&labels.fill(sql));
    let report = database.check().await;
    let mut found = lines(&report);
    let mut missing = Vec::new();
    for expected in &expected {
        // `-` matches any row, `*` any number of rows.
        let (start, limit) = match (expected.strip_suffix('-'), expected.strip_suffix('*')) {
            (Some(start), _) => (start, 1),
            (_, Some(start)) => (start, usize::MAX),
            _ => (expected.as_str(), 1),
        };
        let is_match = |found: &String| {
            if start == expected { found == expected } else { found.starts_with(start) }
        };
        let matching: Vec<usize> =
            (0..found.len()).filter(|at| is_match(&found[*at])).take(limit).collect();
        if matching.is_empty() {
            missing.push(expected.clone());
        }
        for at in matching.into_iter().rev() {
            found.remove(at);
        }
    }
    (!missing.is_empty() || !found.is_empty())
        .then(|| format!("{sql}\n  missing {missing:?}\n  found too {found:?}"))
}

fn lines(report: &Report) -> Vec<String> {
    let lines = |violation: &exosphere_store::Violation| {
        let rule = serde_json::to_value(violation.kind.rule).unwrap();
        let (table, column) = (violation.kind.table, violation.kind.column);
        format!("{} {table}.{column} {}", rule.as_str().unwrap(), violation.row)
    };
    report.violations.iter().map(lines).collect()
}

/// Labels for numbers, in a database and its copies.
struct Labels<'a> {
    database: &'a TestDatabase,
    runs: &'a BTreeMap<&'static str, Run>,
    known: RefCell<BTreeMap<String, i64>>,
}

impl<'a> Labels<'a> {
    fn new(database: &'a TestDatabase, runs: &'a BTreeMap<&'static str, Run>) -> Self {
        Labels { database, runs, known: RefCell::default() }
    }

    fn fill(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('<') {
            let (label, behind) = behind.split_once('>').unwrap();
            filled.push_str(before);
            let number = self.known.borrow().get(label).copied();
            let number = number.unwrap_or_else(|| self.look_up(label));
            filled.push_str(&number.to_string());
            self.known.borrow_mut().insert(label.to_owned(), number);
            rest = behind;
        }
        filled + rest
    }

    fn look_up(&self, label: &str) -> i64 {
        if label == "+1" {
            return self.database.number("SELECT MAX(id) + 1 FROM state");
        }
        let (run, path) =
            label.split_once(':').map_or((label, None), |(run, path)| (run, Some(path)));
        let run = self.runs.get(run).unwrap_or_else(|| panic!("no run {run}")).info.key.0;
        match path {
            None => run,
            Some(path) => self
                .database
                .number(&format!("SELECT id FROM state WHERE run = {run} AND path = '{path}'")),
        }
    }
}
