//! Reads of committed data, apart from the catalog: for executions (`inputs`) and for people
//! (`results`, `views`, `lists`).

pub(crate) mod inputs;
pub(crate) mod results;
pub(crate) mod views;
pub(crate) mod lists;
