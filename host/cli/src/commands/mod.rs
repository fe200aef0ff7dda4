//! The commands of the client, one file each, grouped as on the command line.

pub mod audit;
pub mod grant;
pub mod graph;
pub mod host;
pub mod key;
pub mod namespace;
pub mod pages;
pub mod plugin;
pub mod quota;
pub mod run;

use std::fs;
use std::path::Path;

use exosphere_domain::ids::Name;

use crate::args::Global;
use crate::client::{Client, Trust};
use crate::error::Error;
use crate::output::Output;

/// The context of a client command: client and output.
pub struct Context {
    pub client: Client,
    pub output: Output,
}

impl Context {
    /// Creates the context from the global arguments.
    pub fn new(global: &Global) -> Result<Self, Error> {
        let (key_file, tls_ca) = (global.key_file.as_deref(), global.tls_ca.as_deref());
        let client = Client::new(&global.host, &global.namespace, Trust { key_file, tls_ca })?;
        Ok(Context { client, output: Output::new(global.json) })
    }

    /// Returns the result of a command, after printing a refusal for programs.
    fn done(&self, end: Result<(), Error>) -> Result<(), Error> {
        end.inspect_err(|error| self.output.refusal(error))
    }
}

/// Reads a file that the command line names.
fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| cannot_read(path, &error))
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Error {
    Error::Failed(format!("cannot read {}: {error}", path.display()))
}

/// Returns the given name, or else the file's name without its extension.
fn name_of(name: &Option<Name>, file: &Path) -> Result<Name, Error> {
    if let Some(name) = name {
        return Ok(name.clone());
    }
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    stem.parse().map_err(|error| Error::Usage(format!("{error}; give another with --name")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_defaults_to_the_file_stem() {
        let named = |file: &str| name_of(&None, Path::new(file)).map(String::from);
        assert_eq!(named("/a/b/words.v2.json").unwrap(), "words.v2");
        assert_eq!(named("my file.wasm").unwrap_err().exit_code(), 2);
        let name = Some("other".parse().unwrap());
        assert_eq!(name_of(&name, Path::new("my file.wasm")).unwrap().as_str(), "other");
    }
}
