//! `exosphere grant list`: the grants of every plugin of the namespace.

use reqwest::Method;

use crate::client::Answer;
use crate::commands::grant::show;
use crate::commands::{Session, pages};
use crate::error::Error;
use crate::wire::AllGrants;

/// List what the plugins of the namespace are granted
#[derive(Debug, clap::Args)]
pub struct List {}

impl List {
    pub fn run(&self, session: &Session) -> Result<(), Error> {
        let call = || session.client.operator(Method::GET, &["grants"]);
        let answer = pages::all(call, "grants")?;
        session.output.answer(&answer, all)
    }
}

fn all(answer: &Answer) -> Result<String, Error> {
    Ok(show::lines(&answer.read::<AllGrants>()?.grants))
}
