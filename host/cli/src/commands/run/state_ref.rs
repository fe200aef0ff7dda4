//! Runs and states on the command line: `RUN`, `RUN STATE` or `RUN/STATE`.

use std::str::FromStr;

use exosphere_domain::ids::RunId;
use uuid::Uuid;

use crate::error::Error;

/// A run, and a state of it if the argument names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateRef {
    pub run: RunId,
    state: Option<u64>,
}

impl StateRef {
    /// Returns the state, given after the run or as an argument of its own.
    pub fn state(self, argument: Option<u64>) -> Result<Option<u64>, Error> {
        match (self.state, argument) {
            (Some(one), Some(other)) if one != other => {
                Err(Error::Usage(format!("two states are given, {one} and {other}; give one")))
            }
            (one, other) => Ok(one.or(other)),
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
        let run = Uuid::parse_str(run).map_err(|_| {
            "not a valid run: give its id, a UUID; list them with `exosphere run list`".to_owned()
        })?;
        let state = state.map(str::parse).transpose();
        let state = state
            .map_err(|_| "not a valid state: give its number after the run, as RUN/7".to_owned())?;
        Ok(StateRef { run: RunId(run), state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "0195b7f0-0000-7000-8000-000000000001";

    #[test]
    fn a_state_may_follow_its_run() {
        let run_only: StateRef = RUN.parse().unwrap();
        let run_and_state: StateRef = format!("{RUN}/7").parse().unwrap();
        assert_eq!(run_only.run, run_and_state.run);
        assert_eq!(run_only.state(None).unwrap(), None);
        assert_eq!(run_only.state(Some(3)).unwrap(), Some(3));
        assert_eq!(run_and_state.state(None).unwrap(), Some(7));
        assert_eq!(run_and_state.state(Some(7)).unwrap(), Some(7));
        assert_eq!(run_and_state.state(Some(8)).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn malformed_references_are_refused() {
        for text in ["", "7", "..", &format!("{RUN}/"), &format!("{RUN}/-1"), &format!("{RUN}/1/2")]
        {
            assert!(text.parse::<StateRef>().is_err(), "{text}");
        }
    }
}
