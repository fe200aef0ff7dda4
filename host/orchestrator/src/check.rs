//! Checking the database of a data folder, or another one, beside whatever host
//! has it: the folder is neither taken nor made. What is checked is the store's
//! business.

use std::path::Path;

use exosphere_store::{CheckError, Database, Report};

use crate::data_folder::database_in;

/// Checks the database in a data folder, or the Postgres at a URL instead.
///
/// # Errors
///
/// If there is none, it is another version's, or it cannot be read to the end.
pub async fn check(data: &Path, database: Option<String>) -> Result<Report, CheckError> {
    let database = database.map_or_else(|| Database::Sqlite(database_in(data)), Database::Postgres);
    exosphere_store::check(&database).await
}
