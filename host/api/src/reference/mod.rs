//! The reference that a host serves: the OpenAPI document, a page made from it, and a page for
//! each kind of problem. The pages have no scripts, and show nothing but the text of this program.
//!
//! Not here: the document (`openapi`), and the templates of the pages (`api_page`,
//! `problem_pages`).

mod api_page;
mod problem_pages;

use std::sync::LazyLock;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use exosphere_orchestrator::domain::role::Needs;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::Get;
use crate::route::{QuotaClass, Route, route};
use crate::{Path, openapi_document};

/// The style of every page. The policy of the pages names its digest.
const STYLE: &str = include_str!("style.css");

/// Returns the routes of the reference. Anyone may read it: it is the same for all.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Get, "/v1/openapi.json", Needs::Nothing, QuotaClass::Exempt, openapi_json)
            .describe("openapi", "Returns this document")
            .answers_bytes(200, "application/json"),
        route(Get, "/docs", Needs::Nothing, QuotaClass::Exempt, api_page)
            .describe("reference", "Shows this document as a page")
            .answers_bytes(200, HTML),
        route(Get, "/problems", Needs::Nothing, QuotaClass::Exempt, problem_list)
            .describe("listProblems", "Shows every kind of problem")
            .answers_bytes(200, HTML),
        route(Get, "/problems/{kind}", Needs::Nothing, QuotaClass::Exempt, problem_page)
            .describe("showProblem", "Shows a kind of problem")
            .answers_bytes(200, HTML)
            .fails(&[Kind::NotFound]),
    ]
}

/// The media type of pages.
const HTML: &str = "text/html; charset=utf-8";

/// The document and its page, which are made once: at the first request for either.
static DOCUMENT: LazyLock<Option<String>> = LazyLock::new(|| openapi_document().to_json().ok());
static API_PAGE: LazyLock<String> = LazyLock::new(|| {
    let document = serde_json::to_value(openapi_document()).unwrap_or_default();
    api_page::page(&document).into_string()
});

async fn openapi_json() -> Response {
    match &*DOCUMENT {
        Some(document) => {
            ([(header::CONTENT_TYPE, "application/json")], document.as_str()).into_response()
        }
        None => {
            let message = "internal error: the document cannot be written";
            Problem::new(Kind::Internal, message).into_response()
        }
    }
}

async fn api_page() -> Response {
    page_response(API_PAGE.as_str().into_response())
}

async fn problem_list() -> Response {
    page_response(problem_pages::list().into_string().into_response())
}

async fn problem_page(Path(name): Path<String>) -> Result<Response, Problem> {
    let kind = Kind::from_name(&name).ok_or_else(|| {
        let message = "there is no problem of this name; `/problems` lists every kind";
        Problem::new(Kind::NotFound, message)
    })?;
    Ok(page_response(problem_pages::page(kind).into_string().into_response()))
}

/// The policy of the pages: no scripts, no resources, and the one style.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!("default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'");
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

/// Adds the headers of a page to a response.
fn page_response(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(HTML));
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY.clone());
    response
}

/// Returns a page with a title.
fn layout(title: &str, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · Exosphere" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                nav { a href="/docs" { "API" } " " a href="/problems" { "Problems" } }
                main { h1 { (title) } (body) }
            }
        }
    }
}

/// Returns text with its code between backticks marked up.
fn text(markdown: &str) -> Markup {
    html! {
        @for (place, part) in markdown.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_escaped_and_code_is_marked() {
        let marked = text("a < b, `<c>` & `d`").into_string();
        assert_eq!(marked, "a &lt; b, <code>&lt;c&gt;</code> &amp; <code>d</code>");
    }

    #[test]
    fn the_page_shows_every_route_and_type() {
        for route in crate::route_list() {
            assert!(API_PAGE.contains(route.path) || route.path.ends_with("/plugins/{name}"));
        }
        for shown in ["id=\"startRun\"", "id=\"schema-RunDetails\"", "href=\"/problems/conflict\""]
        {
            assert!(API_PAGE.contains(shown), "{shown}");
        }
        assert!(!API_PAGE.contains("<script"));
    }

    #[test]
    fn every_problem_has_its_page() {
        let list = problem_pages::list().into_string();
        for kind in Kind::ALL {
            assert!(list.contains(&format!("href=\"{}\"", kind.page())));
            let page = problem_pages::page(*kind).into_string();
            assert!(page.contains(&text(kind.remedy()).into_string()), "{kind:?}");
        }
    }
}
