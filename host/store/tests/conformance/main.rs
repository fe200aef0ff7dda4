//! A conformance suite for the store on both databases: every case runs once on SQLite and once on
//! Postgres, and must see the same. Cases for only one of them are marked as such.
//!
//! Not here: the meaning of outcomes (tested in the domain), and hosts, sandboxes and everything
//! else that is not in a database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// Makes two tests of each case of a module, `sqlite::case` and `postgres::case`.
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

/// Makes a test of each case of a module that needs many hosts.
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
mod exporters;
mod staging;
mod run_fairness;

mod differential;
