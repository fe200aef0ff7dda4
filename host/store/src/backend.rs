//! The two databases behind [`Tx`](crate::dialect::Tx) and behind the reads: connections that
//! write, connections that read, and the notifications between hosts on Postgres.

pub(crate) mod sqlite;
pub(crate) mod postgres;
mod deferred;
pub(crate) mod arguments;
pub(crate) mod reader;
pub(crate) mod notifications;
