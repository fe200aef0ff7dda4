//! Runs and states on the command line: `RUN`, `RUN STATE` or `RUN/STATE`. A run is its id, the
//! first digits of it, or `latest`; a state is its path.

use std::str::FromStr;

use exosphere_api_types::RunDetails;
use exosphere_domain::ids::RunId;
use exosphere_domain::run_ref::{BadRunRef, RunRef};
use reqwest::Method;

use crate::commands::Context;
use crate::error::Error;

/// The longest path of a state that is sent, in bytes: a part of a URL.
const MAX_PATH_BYTES: usize = 16 * 1024;

/// A run, and a state of it if the argument names one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateRef {
    run: RunRef,
    state: Option<StatePath>,
}

/// The path of a state, as `run states` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePath(String);

impl StateRef {
    /// Returns the id of the run. The host finds the one that is meant.
    pub fn run(&self, context: &Context) -> Result<RunId, Error> {
        if let RunRef::Id(id) = self.run {
            return Ok(id);
        }
        let answer = context.client.call(Method::GET, &["runs", &self.run.to_string()]).send()?;
        let run: RunDetails = answer.read()?;
        // The id is parsed, because it becomes a part of the next URL.
        let id = run.summary.run.parse();
        Ok(RunId(id.map_err(|_| Error::Internal("the id of the run is not valid".into()))?))
    }

    /// Returns the run as it was given.
    pub fn given(&self) -> &RunRef {
        &self.run
    }

    /// Returns the state, given after the run or as an argument of its own.
    pub fn state<'a>(&'a self, argument: &'a Option<StatePath>) -> Result<Option<&'a str>, Error> {
        match (&self.state, argument) {
            (Some(one), Some(other)) if one != other => Err(Error::Usage(format!(
                "two states are given, {} and {}; give one",
                one.0, other.0
            ))),
            (one, other) => Ok(one.as_ref().or(other.as_ref()).map(|path| path.0.as_str())),
        }
    }
}

impl FromStr for StateRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (run, state) = match text.split_once('/') {
            Some((run, state)) => (run, Some(state)),
            None => (text, None),
        };
        let run = run.parse().map_err(|error: BadRunRef| error.to_string())?;
        Ok(StateRef { run, state: state.map(str::parse).transpose()? })
    }
}

impl FromStr for StatePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_path = (1..=MAX_PATH_BYTES).contains(&text.len())
            && !text.starts_with(['.', '[', '-'])
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte));
        if !is_path {
            return Err("not a valid state: give its path, as `exosphere run states` prints it: \
                        split.count[3]"
                .to_owned());
        }
        Ok(StatePath(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0195b7f0-0000-7000-8000-000000000001";

    #[test]
    fn a_state_may_follow_its_run() {
        let run_only: StateRef = RUN.parse().unwrap();
        let both: StateRef = format!("{RUN}/split.count[3]").parse().unwrap();
        assert_eq!(run_only.run, both.run);
        let path = |text: &str| Some(text.parse::<StatePath>().unwrap());
        assert_eq!(run_only.state(&None).unwrap(), None);
        assert_eq!(run_only.state(&path("a.b")).unwrap(), Some("a.b"));
        assert_eq!(both.state(&None).unwrap(), Some("split.count[3]"));
        assert_eq!(both.state(&path("split.count[3]")).unwrap(), Some("split.count[3]"));
        assert_eq!(both.state(&path("other")).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in ["", "7", "..", &format!("{RUN}/"), &format!("{RUN}/-1"), &format!("{RUN}/a/b")]
        {
            assert!(text.parse::<StateRef>().is_err(), "{text}");
        }
    }
}
