//! The conformance suite of the store: each case runs on SQLite and on Postgres, with the same
//! expectations. Cases for one database are marked.
//!
//! Not here: the effects of outcomes, which the domain tests; hosts and sandboxes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Defines two tests for each case of a module, `sqlite::case` and `postgres::case`.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(crate::test_database::Kind::Sqlite).await })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case(crate::test_database::Kind::Postgres).await })*
        }
    };
}

/// Defines a test for each case of a module that needs several hosts.
macro_rules! on_postgres {
    ($($case:ident),* $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() { super::$case().await })*
        }
    };
}

mod test_database;
mod harness;

mod starts;
mod fences;
mod batches;
mod values;
mod keys;
mod control;
mod retries;
mod sessions;
mod hosts;
mod concurrent_claims;
mod namespaces;
mod access;
mod node_counts;
mod exporters;
mod staging;
mod run_lists;
mod state_lists;
mod logs;
mod insight;
mod deletion;
mod deadlines;
mod pauses;
mod gauges;
mod bulk;
mod run_fairness;
mod reports;

mod differential;
