//! The requests and answers of the HTTP API: one type for each JSON document and each set of
//! query parameters. The host writes them, the client reads them.
//!
//! Reading is strict for requests (an unknown member is refused) and lenient for answers: a
//! newer host may send more members and more values of a list ([`Known`]), and a missing member
//! has its default. A time is in
//! milliseconds since 1970 (UTC). The comment of an optional member says that it may be absent;
//! every other member is always there, and may be null.
//!
//! Untrusted JSON inside an answer (outputs, details of failures) is [`Json`], which is never
//! parsed by a host. [`to_text`] writes it as it is.
//!
//! Not here: routes and status codes (`exosphere-api`), and the body of a graph, which
//! `exosphere-domain` reads.

mod json;
mod known;
mod lists;
mod problem;
mod health;
mod plugins;
mod graphs;
mod states;
mod runs;
mod live;
mod insight;
mod namespaces;
mod grants;
mod pauses;
mod bulk;
mod hosts;
mod secrets;
mod keys;

pub use bulk::{BulkDetails, BulkList, BulkPreview, ExpectedRuns, StartBulk};
pub use grants::{GrantList, PluginGrants};
pub use graphs::{
    Edge, FieldDiff, GraphApplied, GraphDeleteQuery, GraphDeleted, GraphDetails, GraphDiff,
    GraphDiffQuery, GraphList, GraphSummary, GraphValid, NodeDiff, ResolvedNode, RevisionList,
    RevisionListQuery, RevisionSummary, RollBack,
};
pub use health::{Health, ProbeAnswer};
pub use hosts::{HostDetails, HostList};
pub use insight::{GraphStatsQuery, RunCompareQuery, TimelineQuery};
pub use json::{AnyJson, Json, to_text};
pub use keys::{
    AuditList, AuditQuery, AuditedChange, CreateKey, KeyCreated, KeyDetails, KeyList, KeyListQuery,
};
pub use known::Known;
pub use lists::{ListQuery, PageQuery};
pub use live::{LiveListQuery, LiveQuery, RunListChange};
pub use namespaces::{
    EffectiveSettings, NamespaceDetails, NamespaceList, NamespaceQuotas, NamespaceSettings,
    QuotaSettings,
};
pub use pauses::{GraphPause, Pause, PauseRequest, RunPause};
pub use plugins::{
    Capability, CheckQuery, NodeDetails, PluginDetails, PluginList, PluginRemoveQuery,
    PluginRemoved, PluginReport, PluginSummary, UploadQuery,
};
pub use problem::{Problem, ProblemItem};
pub use runs::{
    AttemptLog, LogQuery, NodeCounts, ResultOutput, ResultQuery, RunCounts, RunDeleted, RunDetails,
    RunInputs, RunList, RunLogs, RunQuery, RunRedriven, RunResult, RunSnapshot, RunStarted,
    RunSummary, StartQuery, StartRun,
};
pub use secrets::{SecretEntry, SecretList, SecretListQuery, SecretValue};
pub use states::{
    AttemptDetails, Failure, LogLine, OutputsQuery, StateDetails, StateInputs, StateList,
    StateOutputs, StateSummary,
};

// The types of the domain that occur in requests and answers.
pub use exosphere_domain::bulk::{BulkAction, BulkStatus};
pub use exosphere_domain::filter::{RunFilter, StateFilter};
pub use exosphere_domain::grant::Grants;
pub use exosphere_domain::ids::Name;
pub use exosphere_domain::insight::{
    ComparedNode, ComparedRun, FailureFilter, FailureGroup, FailureGroups, GraphStats,
    NodeDistribution, NodeTimes, RevisionChange, RunComparison, Sample, SlowState, StatsBin,
    TimeBucket, TimeDistribution, Timeline, TimelineBy, TimelineSeries,
};
pub use exosphere_domain::label::{Label, Labels};
pub use exosphere_domain::limits::{LimitValues, Usage};
pub use exosphere_domain::quota::QuotaValues;
pub use exosphere_domain::role::Role;
pub use exosphere_domain::state::{RunStatus, Status as StateStatus};
pub use exosphere_domain::wait_reason::{ReasonCount, RunWhy, StateWhy, WaitReason, WaitingMember};
