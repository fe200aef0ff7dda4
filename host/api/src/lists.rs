//! Pages of lists: their size, and the filter and the part of a list that a request asks for.
//!
//! Not here: the form of a cursor, which is beside each list.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use exosphere_api_types::{ListQuery, PageQuery};
use exosphere_orchestrator::PageRequest;
use exosphere_orchestrator::domain::filter::Filter;
use exosphere_orchestrator::domain::graph::problems::{Object, Problems, string, whole_number};
use serde_json::{Map, Value};

use crate::problem::Problem;
use crate::query::{self, LIMIT, MAX_PAGE_SIZE, QUERY};

/// The default number of runs or states per page.
const DEFAULT_PAGE_SIZE: u32 = 50;

/// The query parameters of a page ([`PageQuery`]).
const PAGE_KEYS: [&str; 2] = ["after", "limit"];

/// The rules of lists with filters, for the OpenAPI document.
pub(crate) const LIST_DETAILS: &str = "The list has what meets every condition. A parameter whose schema is an \
     array may be repeated. \
     A page may be shorter than its limit, and even empty, and yet have a `next`, because the work \
     for one page is bounded.";

/// Returns the part of a list by name that a request asks for.
pub(crate) fn page_request(ListQuery { after, limit }: ListQuery) -> PageRequest {
    PageRequest { after, limit: full_page_size(limit) }
}

/// Returns the number of items of a page that a request asks for.
pub(crate) fn page_size(limit: Option<u32>) -> u32 {
    limit.unwrap_or(DEFAULT_PAGE_SIZE)
}

/// Returns the number of items of a page that is as large as it may be, unless the caller asks for
/// fewer.
pub(crate) fn full_page_size(limit: Option<u32>) -> u32 {
    limit.unwrap_or(MAX_PAGE_SIZE)
}

/// The filter and the page of a list, from the query of a request. A parameter whose value is a
/// list may be repeated.
#[derive(Debug)]
pub(crate) struct Listing<F> {
    pub filter: F,
    page: PageQuery,
}

impl<F> Listing<F> {
    /// Returns the number of items of the page.
    pub(crate) fn limit(&self) -> u32 {
        self.page.limit.unwrap_or(DEFAULT_PAGE_SIZE)
    }

    /// Returns the number of items of a list without pages, which has at most `max`.
    pub(crate) fn limit_up_to(&self, default: u32, max: u32) -> Result<u32, Problem> {
        match self.page.limit {
            Some(limit) if limit > max => {
                let message = format!("this list has at most {max} items; give a lower limit");
                Err(bad_parameter("limit", message))
            }
            limit => Ok(limit.unwrap_or(default)),
        }
    }

    /// Refuses a cursor, for a list without pages.
    pub(crate) fn refuse_after(&self) -> Result<(), Problem> {
        match self.page.after {
            None => Ok(()),
            Some(_) => Err(bad_parameter("after", "this list has no pages; leave it out")),
        }
    }

    /// Returns the cursor, parsed by `read`.
    pub(crate) fn after<C, E: Display>(
        &self,
        read: impl FnOnce(&str) -> Result<C, E>,
    ) -> Result<Option<C>, Problem> {
        let after = self.page.after.as_deref().map(read).transpose();
        after.map_err(|error| bad_parameter("after", error.to_string()))
    }
}

/// Returns the refusal of a parameter.
pub(crate) fn bad_parameter(name: &str, message: impl Into<String>) -> Problem {
    let mut problems = Problems::default();
    problems.add(format!("{QUERY}.{name}"), message);
    Problem::bad_query(problems.into_list())
}

impl<S: Sync, F: Filter + Send> FromRequestParts<S> for Listing<F> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.uri.query().unwrap_or_default().parse()
    }
}

impl<F: Filter> FromStr for Listing<F> {
    type Err = Problem;

    /// Reads the filter and the page of a query, or returns every problem.
    fn from_str(query: &str) -> Result<Self, Problem> {
        let mut problems = Problems::default();
        let given = Value::Object(parameters::<F>(query, &mut problems));
        let known = [F::KEYS, &PAGE_KEYS].concat();
        let listing = Object::read(&given, QUERY, &known, &mut problems).map(|object| {
            let filter = F::read_members(&object, &mut problems);
            let after = object.read_as("after", &mut problems, string).map(str::to_owned);
            let limit = |value: &Value| whole_number(value, 1, u64::from(MAX_PAGE_SIZE));
            let limit = object.read_as(LIMIT, &mut problems, limit);
            let limit = limit.and_then(|limit| u32::try_from(limit).ok());
            Listing { filter, page: PageQuery { after, limit } }
        });
        problems.or(listing).map_err(Problem::bad_query)
    }
}

/// Converts the parameters of a query to the members of a JSON object: lists of texts, numbers and
/// texts.
fn parameters<F: Filter>(query: &str, problems: &mut Problems) -> Map<String, Value> {
    let mut members = query::parameters(query, F::LISTS, problems);
    for key in F::NUMBERS.iter().chain([&LIMIT]) {
        let number = members.get(*key).and_then(Value::as_str).map(str::parse::<i64>);
        if let Some(Ok(number)) = number {
            members.insert((*key).to_owned(), Value::from(number));
        }
    }
    members
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use exosphere_api_types::{RunFilter, StateFilter};
    use exosphere_orchestrator::RunCursor;
    use exosphere_orchestrator::domain::state::RunStatus;

    use super::*;

    #[test]
    fn a_query_repeats_the_parameters_of_lists() {
        let query = "status=FAILED&label=a:b%3Ac&status=RUNNING&graph=g&label=x:&created_after=5";
        let listing: Listing<RunFilter> = query.parse().unwrap();
        assert_eq!(listing.filter.statuses, [RunStatus::Failed, RunStatus::Running]);
        let labels: Vec<_> = listing.filter.labels.iter().map(ToString::to_string).collect();
        assert_eq!(labels, ["a:b:c", "x:"]);
        assert_eq!(listing.filter.created_after, Some(5));
        assert_eq!(listing.limit(), DEFAULT_PAGE_SIZE);
        assert!(listing.after(str::parse::<RunCursor>).unwrap().is_none());
        let listing: Listing<RunFilter> =
            "after=5.00000000000000000000000000000007&limit=1000".parse().unwrap();
        assert!(listing.filter.is_empty() && listing.limit() == MAX_PAGE_SIZE);
        assert!(listing.after(str::parse::<RunCursor>).unwrap().is_some());
    }

    #[test]
    fn a_query_is_refused_with_every_problem() {
        let refused = |query: &str| query.parse::<Listing<RunFilter>>().unwrap_err();
        let problem =
            refused("status=FAILD&graph=a%20b&graph=c&created_after=noon&limit=0&colour=1");
        let problem = serde_json::to_value(problem).unwrap();
        let paths: Vec<_> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["path"].as_str().unwrap())
            .collect();
        let expected = ["graph", "colour", "status[0]", "created_after", "limit"]
            .map(|it| format!("query.{it}"));
        assert_eq!(paths, expected);
        assert_eq!(problem["status"], 400);
        for query in ["limit=1001", "limit=x", "limit=-1", "status=", "created_before=1.5"] {
            refused(query);
        }
        let listing: Listing<StateFilter> = "after=no".parse().unwrap();
        assert!(listing.after(str::parse::<RunCursor>).is_err());
    }
}
