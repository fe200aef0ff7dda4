//! The commands of the client, one file each, grouped as on the command line.

pub mod audit;
pub mod bulk;
pub mod grant;
pub mod graph;
pub mod host;
pub mod key;
pub mod namespace;
pub mod pages;
pub mod plugin;
pub mod quota;
pub mod run;
pub mod secret;

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use exosphere_api_types::{NamespaceList, Problem};
use exosphere_domain::graph::problems::nearest;
use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::args::Global;
use crate::client::{Client, NO_NAMESPACE, Trust};
use crate::error::Error;
use crate::output::Output;

/// The context of a client command: client and output.
pub struct Context {
    pub client: Client,
    pub output: Output,
    namespace: Name,
}

impl Context {
    /// Creates the context from the global arguments.
    pub fn new(global: &Global) -> Result<Self, Error> {
        let (key_file, tls_ca) = (global.key_file.as_deref(), global.tls_ca.as_deref());
        let client = Client::new(&global.host, &global.namespace, Trust { key_file, tls_ca })?;
        let namespace = global.namespace.clone();
        Ok(Context { client, output: Output::new(global.json), namespace })
    }

    /// Returns the result of a command, after printing a refusal for programs. The refusal of a
    /// namespace that does not exist names the nearest one that the caller may list.
    fn done(&self, end: Result<(), Error>) -> Result<(), Error> {
        self.done_in(&self.namespace, end)
    }

    /// Returns the result of a command on a namespace, as [`Context::done`] does.
    fn done_in(&self, namespace: &Name, end: Result<(), Error>) -> Result<(), Error> {
        let end = end.map_err(|error| match error {
            Error::Refused { problem, json } if problem.reason.as_deref() == Some(NO_NAMESPACE) => {
                let problem = self.with_nearest_namespace(namespace, *problem);
                Error::Refused { problem: Box::new(problem), json }
            }
            error => error,
        });
        end.inspect_err(|error| self.output.refusal(error))
    }

    fn with_nearest_namespace(&self, namespace: &Name, problem: Problem) -> Problem {
        let listed =
            pages::read_all(|| self.client.of_all(Method::GET, &["namespaces"]), "namespaces");
        let names = listed.and_then(|list| list.read::<NamespaceList>());
        // A caller who may not list namespaces is told of none.
        let names = names.map(|list| list.namespaces).unwrap_or_default();
        let names = names.iter().map(|namespace| namespace.name.as_str());
        let hint = match nearest(namespace.as_str(), names) {
            Some(meant) => format!("; did you mean {meant}?"),
            None => "; a plugin or a graph in it makes it".to_owned(),
        };
        Problem { detail: format!("{}{hint}", problem.detail), ..problem }
    }
}

/// The name of standard input on the command line.
const STANDARD_INPUT: &str = "-";

/// The most bytes that are read from standard input: more than a host takes.
const MAX_STANDARD_INPUT_BYTES: u64 = 64 * 1024 * 1024;

/// The mark with which some editors begin a text. It is no part of it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Returns whether a path stands for standard input.
pub fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == STANDARD_INPUT
}

/// Reads a file that the command line names, or standard input; a byte order mark is left out.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = if is_standard_input(path) { read_standard_input() } else { fs::read(path) };
    let mut bytes = bytes.map_err(|error| cannot_read(path, &error))?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

fn read_standard_input() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(MAX_STANDARD_INPUT_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_STANDARD_INPUT_BYTES {
        let limit = MAX_STANDARD_INPUT_BYTES / (1024 * 1024);
        return Err(io::Error::other(format!("it has more than {limit} MiB")));
    }
    Ok(bytes)
}

/// Reads a file of text, as [`read_file`] does.
pub fn read_text(path: &Path) -> Result<String, Error> {
    String::from_utf8(read_file(path)?).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let path = shown(path);
        Error::Failed(format!("{path} is not UTF-8 text: byte {at} is not valid; convert it first"))
    })
}

/// Returns the name of a file in messages.
pub fn shown(path: &Path) -> String {
    if is_standard_input(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn cannot_read(path: &Path, error: &io::Error) -> Error {
    Error::Failed(format!("cannot read {}: {error}", shown(path)))
}

/// Names the file in the refusal of what it holds.
pub fn of_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Refused { problem, json } => {
            let text = if problem.detail.is_empty() { &problem.title } else { &problem.detail };
            let detail = format!("{}: {text}", shown(path));
            Error::Refused { problem: Box::new(Problem { detail, ..*problem }), json }
        }
        error => error,
    }
}

/// Returns the given name, or else the file's name without its extension.
fn name_of(name: &Option<Name>, file: &Path) -> Result<Name, Error> {
    if let Some(name) = name {
        return Ok(name.clone());
    }
    if is_standard_input(file) {
        let message = "standard input has no name; give one with --name";
        return Err(Error::Usage(message.to_owned()));
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
