//! Reads of the logs of a run.
//!
//! Not here: the lines of an attempt that is running.

use std::sync::Arc;

use exosphere_domain::graph::Graph;
use exosphere_domain::ids::{Millis, Name, RunId};
use exosphere_store::{AttemptLog, LogCursor, LogPageRequest, Page};

use crate::Host;
use crate::error::Error;
use crate::service::large_json::AnswerPermit;

/// The most bytes of a page of logs that are read without a permit for something large.
const MAX_PAGE_BYTES: i64 = 2 * 1024 * 1024;

/// A request for a page of the logs of a run.
#[derive(Debug, Clone, Default)]
pub struct LogRequest {
    /// Only logs of the state at this path.
    pub state: Option<String>,
    /// Only logs of attempts that ended at this time or later.
    pub since: Option<Millis>,
    /// The cursor: the page begins after this attempt.
    pub after: Option<LogCursor>,
    /// The maximum number of logs.
    pub limit: u32,
}

/// A page of the logs of a run.
#[derive(Debug)]
pub struct LogPage {
    /// The id of the run.
    pub run: RunId,
    /// The graph of the run.
    pub graph: Arc<Graph>,
    /// The logs, in the order in which their attempts ended.
    pub logs: Page<AttemptLog>,
    /// Permit to hold until the page has been sent.
    pub permit: Option<AnswerPermit>,
}

impl Host {
    /// Reads a page of the logs of a run.
    pub async fn run_logs(
        &self,
        namespace: &Name,
        id: RunId,
        request: LogRequest,
    ) -> Result<LogPage, Error> {
        let info = self.run_info(namespace, id).await?;
        let LogRequest { state, since, after, limit } = request;
        let state = match &state {
            Some(path) => Some(self.find_state(&info, path).await?.0),
            None => None,
        };
        let page = LogPageRequest { state, since, after, limit };
        let logs = self.inner.db.store.run_logs(info.key, &page);
        let (logs, permit) = self.inner.large_json.read(namespace, MAX_PAGE_BYTES, logs).await?;
        Ok(LogPage { run: id, graph: info.graph.clone(), logs, permit })
    }
}
