//! `exosphere check` on real databases. A database made by a host's own commits has no violation,
//! whatever became of its runs. One that was tampered with by SQL is reported, row by row, and
//! nothing else is.

#![allow(clippy::unwrap_used, clippy::panic)]

mod harness;
mod runs;
mod no_false_positives;
mod invalid_databases;
mod corruption_cases;
mod corruption;
