//! Check of the database of a data folder, or of another one, while a host may use it. The
//! folder is neither locked nor created.
//!
//! Not here: the check itself (`exosphere_store`).

use std::path::Path;

use exosphere_store::{CheckError, Database, Report};

use crate::data_folder::database_in;

/// Checks the database in a data folder, or the Postgres database at a URL instead.
///
/// # Errors
///
/// If the database does not exist, belongs to another version, or cannot be read to the
/// end.
pub async fn check(data: &Path, database: Option<String>) -> Result<Report, CheckError> {
    let database = database.map_or_else(|| Database::Sqlite(database_in(data)), Database::Postgres);
    exosphere_store::check(&database).await
}
