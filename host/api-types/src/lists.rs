//! Query parameters that several lists share.

use exosphere_domain::ids::Name;
use exosphere_domain::json::Typed;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

/// The query parameters of a list in the order of names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// The cursor: `next` of the page before. The page begins after this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(inline)]
    pub after: Option<Name>,
    /// The maximum number of items of the page, from 1 to 1000 [default: 1000].
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

/// The page of a list with filters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// The cursor: `next` of the page before. Its text is opaque.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The maximum number of items of the page, from 1 to 1000 [default: 50]. A page may be
    /// shorter, and even empty, and yet have a `next`: the work for one page is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
}

impl Typed for ListQuery {}
impl Typed for PageQuery {}
