//! Tests of the graph file's reference page: its example is valid, and it
//! describes every key.

use super::*;
use crate::graph::raw::{GRAPH_KEYS, NODE_KEYS, STORE_KEYS, UNITE_KEYS};
use crate::retry::RETRY_KEYS;

const PAGE: &str = include_str!("../../../../../docs/reference/graph-file.md");

#[test]
fn the_documented_example_is_valid() {
    let (_, rest) = PAGE.split_once("```json\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let template = crate::json::read(example, &mut { u64::MAX }).unwrap();
    assert_eq!(problem_lines(&template), Vec::<String>::new());
}

#[test]
fn every_key_is_documented_once() {
    let tables: [(&str, &[&str]); 5] = [
        ("## Graph\n", &GRAPH_KEYS),
        ("## Node\n", &NODE_KEYS),
        ("## Unite\n", &UNITE_KEYS),
        ("## Retry policy\n", &RETRY_KEYS),
        ("## Store configuration\n", &STORE_KEYS),
    ];
    for (title, keys) in tables {
        let (_, rest) = PAGE.split_once(title).unwrap();
        let section = rest.split("\n## ").next().unwrap();
        let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| `")).collect();
        for key in keys {
            let row = format!("| `{key}` |");
            let count = rows.iter().filter(|line| line.starts_with(&row)).count();
            assert_eq!(count, 1, "{title}{row}");
        }
        assert_eq!(rows.len(), keys.len(), "{title}");
    }
}
