//! `exosphere check` on real databases: no violation in a database that a host wrote, and one for
//! each row that was corrupted by SQL.

#![allow(clippy::unwrap_used, clippy::panic)]

mod harness;
mod runs;
mod no_false_positives;
mod invalid_databases;
mod corruption_cases;
mod bulk_cases;
mod attempt_cases;
mod corruption;
