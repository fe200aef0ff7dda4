//! `exosphere graph validate`: validates a graph as `apply` would, without changing
//! anything.

use std::path::PathBuf;

use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::commands::{Context, name_of, of_file, read_file};
use crate::error::Error;

/// Validate a graph without applying it, and list every mistake
#[derive(Debug, clap::Args)]
pub struct Validate {
    /// The template, a JSON file; - for standard input
    file: PathBuf,
    /// The graph's name [default: the name of the file]
    #[arg(long)]
    name: Option<Name>,
}

impl Validate {
    pub fn run(&self, context: &Context) -> Result<(), Error> {
        let name = name_of(&self.name, &self.file)?;
        let template = read_file(&self.file)?;
        let call = context.client.call(Method::POST, &["graphs", name.as_str(), "validate"]);
        let answer = call.json_text(template).send().map_err(|error| of_file(&self.file, error))?;
        context.output.answer(&answer, |_| Ok(format!("{name} is valid")))
    }
}
