//! The pages of problems: one for each kind, to which the `type` of a problem document leads.
//!
//! Not here: the texts (`problem_kind`).

use maud::{Markup, html};

use super::{layout, text};
use crate::problem_kind::Kind;

/// Returns the page that lists every kind.
pub(super) fn list() -> Markup {
    let rows = html! {
        p { "Every error of the API is a problem document (RFC 9457), whose " code { "type" }
            " leads to one of these pages." }
        table {
            tr { th { "Kind" } th { "Status" } th { "Meaning" } }
            @for kind in Kind::ALL {
                tr {
                    td { a href=(kind.page()) { code { (kind.name()) } } }
                    td { (kind.status().as_u16()) }
                    td { (text(kind.meaning())) }
                }
            }
        }
    };
    layout("Problems", rows)
}

/// Returns the page of a kind.
pub(super) fn page(kind: Kind) -> Markup {
    let status = kind.status();
    let facts = html! {
        p.facts { "Status " (status.as_u16()) " " (status.canonical_reason().unwrap_or_default()) }
        p { (text(kind.meaning())) }
        h2 { "What the caller does" }
        p { (text(kind.remedy())) }
    };
    layout(kind.name(), facts)
}
