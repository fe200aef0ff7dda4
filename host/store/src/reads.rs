//! Reads of committed data, apart from the catalog: for executions (`inputs`) and for people
//! (`results`, `views`, `lists`, `run_list`, `state_list`, `logs`, `open_states`, `insight`), and for
//! traces (`spans`).

pub(crate) mod inputs;
pub(crate) mod results;
pub(crate) mod views;
pub(crate) mod lists;
pub(crate) mod run_list;
pub(crate) mod state_list;
pub(crate) mod logs;
pub(crate) mod open_states;
mod insight;
pub(crate) mod spans;
