//! `exosphere graph validate`: validates a graph as `apply` would, without changing
//! anything.

use std::path::PathBuf;

use exosphere_domain::ids::Name;
use reqwest::Method;

use crate::commands::{Session, name_of, read_file};
use crate::error::Error;

/// Check a graph without applying it; every mistake is listed
#[derive(Debug, clap::Args)]
pub struct Validate {
    /// The template, a JSON file
    file: PathBuf,
    /// The graph's name [default: that of the file]
    #[arg(long)]
    name: Option<Name>,
}

impl Validate {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let name = name_of(&self.name, &self.file)?;
        let template = read_file(&self.file)?;
        let call = session.client.call(Method::POST, &["graphs", name.as_str(), "validate"]);
        let answer = call.json_text(template).send()?;
        session.output.answer(&answer, |_| Ok(format!("{name} is valid")))
    }
}
