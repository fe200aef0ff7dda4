//! The routes by which others learn whether the host works: `/health` for clients, `/healthz` and
//! `/readyz` for what starts and supervises the host. None of them asks the database.

use axum::extract::State;
use exosphere_api_types::{Health, ProbeAnswer};
use exosphere_orchestrator::Host;
use exosphere_orchestrator::domain::role::Needs;

use crate::answer::Answer;
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::Get;
use crate::route::{QuotaClass, Route, route};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Get, "/health", Needs::Nothing, QuotaClass::Exempt, health)
            .describe("health", "Returns whether the host can work")
            .answers::<Health>(200)
            .fails(&[Kind::Unavailable]),
        route(Get, "/healthz", Needs::Nothing, QuotaClass::Exempt, healthz)
            .describe("healthz", "Returns whether the process works; if not, restart it")
            .answers::<ProbeAnswer>(200),
        route(Get, "/readyz", Needs::Nothing, QuotaClass::Exempt, readyz)
            .describe("readyz", "Returns whether the host should get requests")
            .answers::<ProbeAnswer>(200)
            .fails(&[Kind::Unavailable]),
    ]
}

async fn health(State(host): State<Host>) -> Result<Answer<Health>, Problem> {
    host.health().map_err(|_| {
        let message = "the database is unavailable: the host's log has the reason";
        Problem::new(Kind::Unavailable, message)
    })?;
    Ok(Answer(Health {
        status: if host.is_stopping() { "stopping" } else { "ok" }.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

/// Answers even while the database is away: a restart would not bring it back.
async fn healthz() -> Answer<ProbeAnswer> {
    Answer(ProbeAnswer { status: "ok".to_owned() })
}

async fn readyz(State(host): State<Host>) -> Result<Answer<ProbeAnswer>, Problem> {
    let unready = |reason: exosphere_orchestrator::Unready| {
        Problem::new(Kind::Unavailable, reason.to_string())
    };
    host.readiness().map_err(unready)?;
    Ok(Answer(ProbeAnswer { status: "ready".to_owned() }))
}
