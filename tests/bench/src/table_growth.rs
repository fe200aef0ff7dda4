//! Growth: the same load with increasing numbers of finished states and of plugins. The cost must
//! not grow with either.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{good, guest};
use rusqlite::Connection;

use crate::loads::fanout;
use crate::resources::numbered;
use crate::results::{Results, Unit};
use crate::system_under_test::SystemUnderTest;

/// Number of branches of the fanout.
const BRANCHES: u64 = 20_000;
/// Number of plugins of each host.
const PLUGIN_COUNTS: [usize; 3] = [1, 10, 1000];

const COUNT_STATES: &str = "SELECT COUNT(*) FROM state";

/// Measures both kinds of growth.
pub fn run(postgres: &Postgres, history: u64, rounds: u32, results: &mut Results) -> Result<()> {
    let sizes = [0, history / 10, history];
    for database in [None, Some(postgres)] {
        let mut with_history = Vec::new();
        for states in sizes {
            eprintln!("growth: prefills {states} finished states");
            let system = SystemUnderTest::start(database, &format!("history{states}"))?;
            prefill(&system, postgres, states)?;
            with_history.push((format!("beside {} finished states", grouped(states)), system));
        }
        interleave(&with_history, rounds, results)?;
    }
    for database in [None, Some(postgres)] {
        let mut with_plugins = Vec::new();
        for plugins in PLUGIN_COUNTS {
            eprintln!("growth: uploads {plugins} plugins");
            let system = SystemUnderTest::start(database, &format!("plugins{plugins}"))?;
            upload(&system, 1..plugins)?;
            let s = if plugins == 1 { "" } else { "s" };
            with_plugins.push((format!("with {} plugin{s}", grouped(plugins as u64)), system));
        }
        interleave(&with_plugins, rounds, results)?;
    }
    Ok(())
}

/// Runs the fanout on all systems in turn. The results include the ratio to the rate of the first.
fn interleave(
    systems: &[(String, SystemUnderTest)],
    rounds: u32,
    results: &mut Results,
) -> Result<()> {
    for number in 0..=rounds {
        eprintln!("growth: round {number} of {rounds}");
        let mut first = None;
        for (label, system) in systems {
            let mut found = Results::default();
            let load = format!("fanout of 20,000, {label}");
            fanout(system, "fanout", BRANCHES, &load, &mut found)?;
            let rate = found.latest(&load, system.name).context("no rate")?;
            if number > 0 {
                results.add(&load, system.name, Unit::StatesPerSecond, rate);
                let part = rate / *first.get_or_insert(rate);
                results.add(&load, system.name, Unit::Ratio, part);
            }
        }
    }
    Ok(())
}

/// Uploads small plugins, each with different bytes.
fn upload(system: &SystemUnderTest, numbers: Range<usize>) -> Result<()> {
    let minimal = guest::component(&guest::Changes::default())?;
    for number in numbers {
        let bytes = numbered(&minimal, number)?;
        good(system.host.upload(&format!("minimal{number}"), bytes)?)?;
    }
    Ok(())
}

/// Difference between the id of a row and of its copy. Copies get ids below those of the host's own
/// rows, so that new rows still go to the end.
const COPY_ID_OFFSET: u64 = 1_000_000;

/// The copied tables, each with the columns whose ids must differ from the original's.
const COPIED_TABLES: [(&str, &[&str]); 4] = [
    ("run", &["id"]),
    ("state", &["id", "run"]),
    ("unite", &["state", "source"]),
    ("output", &["state"]),
];

/// Runs one fanout and copies its rows until the database has `states` states.
fn prefill(system: &SystemUnderTest, postgres: &Postgres, states: u64) -> Result<()> {
    fanout(system, "fanout", BRANCHES, "prefill", &mut Results::default())?;
    let copies = states / (BRANCHES + 2);
    if copies == 0 {
        return Ok(());
    }
    let ensure_count = |count: i64| {
        let expected = (copies + 1) * (BRANCHES + 2);
        ensure!(u64::try_from(count)? == expected, "{count} states instead of {expected}");
        Ok(())
    };
    match system.database() {
        Some(database) => {
            let columns = |table: &str| -> Result<Vec<String>> {
                let sql = format!(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'"
                );
                Ok(postgres.psql(database, &sql)?.lines().map(str::to_owned).collect())
            };
            let numbers = format!("generate_series(1::BIGINT, {copies}) n");
            for (table, numbered) in COPIED_TABLES {
                let columns = columns(table)?;
                let sql = copy(table, numbered, &columns, &numbers, "gen_random_uuid()::TEXT");
                postgres.psql(database, &sql)?;
            }
            postgres.psql(database, "VACUUM ANALYZE")?;
            postgres.psql(database, "CHECKPOINT")?;
            ensure_count(postgres.psql(database, COUNT_STATES)?.trim().parse()?)
        }
        None => {
            let sqlite = Connection::open(system.host.data().join("exosphere.db"))?;
            let numbers = format!(
                "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT {copies}) \
                 SELECT n FROM c)"
            );
            for (table, numbered) in COPIED_TABLES {
                let mut named = sqlite.prepare("SELECT name FROM pragma_table_info(?1)")?;
                let columns = named.query_map([table], |row| row.get(0))?;
                let columns = columns.collect::<Result<Vec<String>, _>>()?;
                let uuid = "lower(hex(randomblob(16)))";
                sqlite.execute_batch(&copy(table, numbered, &columns, &numbers, uuid))?;
            }
            sqlite.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
            ensure_count(sqlite.query_row(COUNT_STATES, [], |row| row.get(0))?)
        }
    }
}

/// Copies the host's own rows of a table, once for each of the numbers `n`.
fn copy(table: &str, numbered: &[&str], columns: &[String], numbers: &str, uuid: &str) -> String {
    let value = |column: &String| match column.as_str() {
        "uuid" => uuid.to_owned(),
        name if numbered.contains(&name) => format!("{name} - n * {COPY_ID_OFFSET}"),
        name => name.to_owned(),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    format!(
        "INSERT INTO {table} ({}) SELECT {} FROM {numbers}, {table} WHERE {} > 0",
        columns.join(", "),
        values.join(", "),
        numbered[0]
    )
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
