//! The query of a request: its parameters, each once unless it is a list, and the type that a
//! handler takes of them. A route without parameters refuses every query.
//!
//! Not here: the filters and the pages of lists (`lists`), which are read from the same parameters.

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use exosphere_orchestrator::domain::graph::problems::{Problems, member};
use exosphere_orchestrator::domain::json::{Spelling, Typed, read_checked};
use serde_json::{Map, Value};

use crate::problem::Problem;

/// The path of the query in the problems of a request.
pub(crate) const QUERY: &str = "query";

/// The largest number of items per page, and the default where items are small.
pub(crate) const MAX_PAGE_SIZE: u32 = 1000;

/// The parameter with the number of items of a page, of every list.
pub(crate) const LIMIT: &str = "limit";

/// Query parameters of a type. Every parameter is known, valid and given once, or else the request
/// is refused with every problem.
pub(crate) struct Query<T>(pub T);

impl<S: Sync, T: Typed> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        read(parts.uri.query().unwrap_or_default()).map(Query)
    }
}

fn read<T: Typed>(query: &str) -> Result<T, Problem> {
    let mut problems = Problems::default();
    let mut given = parameters(query, &[], &mut problems);
    check_limit(&mut given, &mut problems);
    let read = read_checked(given, QUERY, Spelling::Query, &mut problems);
    problems.or(read).map_err(Problem::bad_query)
}

/// Refuses the query of a route that takes none.
pub(crate) fn refuse_any(uri: &Uri) -> Result<(), Problem> {
    let Some(query) = uri.query().filter(|query| !query.is_empty()) else { return Ok(()) };
    let mut problems = Problems::default();
    for key in parameters(query, &[], &mut problems).keys() {
        problems.add(member(QUERY, key), "this path takes no parameters; leave it out");
    }
    Err(Problem::bad_query(problems.into_list()))
}

/// Reads the parameters of a query: lists of texts, and texts. Records each other one that is given
/// twice.
pub(crate) fn parameters(
    query: &str,
    lists: &[&str],
    problems: &mut Problems,
) -> Map<String, Value> {
    let mut members = Map::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let (key, value) = (key.into_owned(), Value::String(value.into_owned()));
        if lists.contains(&key.as_str()) {
            let list = members.entry(key).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(value);
            }
            continue;
        }
        if members.insert(key.clone(), value).is_some() {
            problems.add(member(QUERY, &key), "this is given twice; give it once");
        }
    }
    members
}

/// Checks the number of items of a page, and takes it out if it is not valid.
fn check_limit(members: &mut Map<String, Value>, problems: &mut Problems) {
    let Some(limit) = members.get(LIMIT).and_then(Value::as_str) else { return };
    if !limit.parse().is_ok_and(|limit: u32| (1..=MAX_PAGE_SIZE).contains(&limit)) {
        let message = format!("this must be a whole number from 1 to {MAX_PAGE_SIZE}");
        problems.add(member(QUERY, LIMIT), message);
        members.remove(LIMIT);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use exosphere_api_types::{GraphDiffQuery, ListQuery};

    use super::*;

    fn paths(problem: Problem) -> Vec<String> {
        let problem = serde_json::to_value(problem).unwrap();
        assert_eq!(problem["type"], "/problems/bad-query");
        let errors = problem["errors"].as_array().unwrap().iter();
        errors.map(|error| error["path"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_query_of_a_type_is_read() {
        let query: ListQuery = read("after=a&limit=1000").unwrap();
        assert_eq!((query.after.unwrap().as_str(), query.limit), ("a", Some(1000)));
        assert_eq!(read::<ListQuery>("").unwrap(), ListQuery::default());
        let diff: GraphDiffQuery = read("from=1&to=%32").unwrap();
        assert_eq!((diff.from, diff.to), (1, 2));
    }

    #[test]
    fn each_problem_of_a_query_is_named() {
        for (query, expected) in [
            ("limit=1&limit=2", &["query.limit"][..]),
            ("after=a&after=a", &["query.after"]),
            ("limit=0", &["query.limit"]),
            ("limit=1001", &["query.limit"]),
            ("limit=", &["query.limit"]),
            ("limt=1", &["query.limt"]),
            ("after=a%20b&limit=-1&x=1&x=2", &["query.x", "query.limit", "query.after", "query.x"]),
            ("a.b=1", &["query[\"a.b\"]"]),
        ] {
            assert_eq!(paths(read::<ListQuery>(query).err().unwrap()), expected, "{query}");
        }
        let missing = serde_json::to_value(read::<GraphDiffQuery>("from=1").err().unwrap());
        assert_eq!(missing.unwrap()["detail"], "query: the parameter \"to\" is missing");
    }

    #[test]
    fn a_path_without_parameters_takes_no_query() {
        for (path, expected) in
            [("/health", &[][..]), ("/health?", &[]), ("/health?x=1&y", &["query.x", "query.y"])]
        {
            let refused = refuse_any(&path.parse().unwrap());
            assert_eq!(refused.map_or_else(paths, |()| Vec::new()), expected, "{path}");
        }
    }
}
