//! `exosphere check` on real databases: one that a host's own commits have
//! made has nothing wrong with it, whatever became of its runs; and one that
//! was tampered with by SQL is reported, row by row, and nothing else is.

#![allow(clippy::unwrap_used, clippy::panic)]

mod bed;
mod runs;
mod clean;
mod doors;
mod cases;
mod tampered;
