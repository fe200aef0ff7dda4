//! The database arguments of commands that need no host: a data folder or a Postgres
//! database.
//! Not here: the same arguments of `serve`, which have a help text of their own.

use std::path::PathBuf;

use clap::Args;

/// A database, whether a host is running on it or not.
#[derive(Debug, Args)]
pub struct DatabaseArgs {
    /// The data folder of a host, which may be running
    #[arg(long, env = "EXOSPHERE_DATA", default_value = "./exosphere-data", value_name = "DIR")]
    pub data: PathBuf,
    /// A Postgres database instead of the one in the folder:
    /// postgres://USER:PASSWORD@HOST:PORT/DATABASE
    #[arg(long, env = "EXOSPHERE_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: Option<String>,
}
