//! A statement on either database: its two texts, its parameters, the rows that it returns, and the
//! transaction in which it runs. Not here: any statement (`sql`), and any database
//! (`backend`).

mod statement;
mod columns;
mod transaction;

pub(crate) use columns::{Column, Cursor, WrittenColumn, row_struct};
pub(crate) use statement::{
    Param, ParamColumn, ParamRows, Statement, params, to_sqlite_placeholders,
};
pub(crate) use transaction::{FromRow, PendingWrite, PendingWrites, Row, Tx, expect_affected};
