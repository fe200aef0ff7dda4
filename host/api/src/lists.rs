//! Pages of lists: their size, and the part of a list that a request asks for.

use exosphere_api_types::ListQuery;
use exosphere_orchestrator::PageRequest;

/// The number of items per page of a list by name, unless the caller asks for fewer.
const MAX_NAMES_PER_PAGE: u32 = 1000;

/// The default and the largest number of runs or states per page.
const DEFAULT_PAGE_SIZE: u32 = 50;
const MAX_PAGE_SIZE: u32 = 1000;

/// Returns the part of a list by name that a request asks for.
pub(crate) fn page_request(ListQuery { after, limit }: ListQuery) -> PageRequest {
    PageRequest { after, limit: limit.unwrap_or(MAX_NAMES_PER_PAGE).clamp(1, MAX_NAMES_PER_PAGE) }
}

/// Returns the number of runs or states of a page.
pub(crate) fn page_size(limit: Option<u32>) -> u32 {
    limit.unwrap_or(DEFAULT_PAGE_SIZE).clamp(1, MAX_PAGE_SIZE)
}

/// Returns the number of outputs of a page.
pub(crate) fn outputs_page_size(limit: Option<u32>) -> u32 {
    limit.unwrap_or(MAX_PAGE_SIZE).clamp(1, MAX_PAGE_SIZE)
}
