//! `/runs/{run}/states`: list, show, inputs, outputs, retry.

use axum::extract::State;
use axum::response::Response;
use exosphere_api_types::{
    OutputsQuery, RunDetails, StateDetails, StateFilter, StateInputs, StateList, StateOutputs,
    StateWhy,
};
use exosphere_orchestrator::domain::ids::{Name, RunId};
use exosphere_orchestrator::domain::path;
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::{Host, StatePageRequest};

use crate::answer::{self, Answer};
use crate::lists::{LIST_DETAILS, Listing, full_page_size};
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::Verb::{Get, Post};
use crate::route::{QuotaClass, Route, route};
use crate::{Path, Query, views};

/// Returns the routes of states.
pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(
            Get,
            "/v1/namespaces/{namespace}/runs/{run}/states",
            Role::Viewer,
            QuotaClass::Read,
            list,
        )
        .describe("listStates", "Lists the states of a run, in the order of their paths")
        .details(LIST_DETAILS)
        .lists::<StateFilter>()
        .answers::<StateList>(200)
        .fails(&[Kind::NotFound])
        .shows_payloads(),
        route(
            Get,
            "/v1/namespaces/{namespace}/runs/{run}/states/{state}",
            Role::Viewer,
            QuotaClass::Read,
            show,
        )
        .describe("showState", "Returns a state with its outputs and attempts")
        .answers::<StateDetails>(200)
        .fails(&[Kind::NotFound])
        .shows_payloads()
        .offloaded(),
        route(
            Get,
            "/v1/namespaces/{namespace}/runs/{run}/states/{state}/why",
            Role::Viewer,
            QuotaClass::Read,
            why,
        )
        .describe("whyState", "Returns the reason why a state waits")
        .answers::<StateWhy>(200)
        .fails(&[Kind::NotFound]),
        route(
            Get,
            "/v1/namespaces/{namespace}/runs/{run}/states/{state}/inputs",
            Role::Viewer,
            QuotaClass::Read,
            inputs,
        )
        .describe("showStateInputs", "Returns the inputs of a state, as its node gets them")
        .answers::<StateInputs>(200)
        .fails(&[Kind::NotFound, Kind::Conflict])
        .shows_payloads()
        .offloaded(),
        route(
            Get,
            "/v1/namespaces/{namespace}/runs/{run}/states/{state}/outputs",
            Role::Viewer,
            QuotaClass::Read,
            outputs,
        )
        .describe("listStateOutputs", "Lists the outputs of a state, in order")
        .query::<OutputsQuery>()
        .answers::<StateOutputs>(200)
        .fails(&[Kind::NotFound])
        .shows_payloads()
        .offloaded(),
        route(
            Post,
            "/v1/namespaces/{namespace}/runs/{run}/states/{state}/retry",
            Role::Operator,
            QuotaClass::Write,
            retry,
        )
        .describe("retryState", "Runs a failed state again")
        .answers::<RunDetails>(200)
        .fails(&[Kind::NotFound, Kind::Conflict])
        .shows_payloads(),
    ]
}

pub(crate) async fn list(
    State(host): State<Host>,
    Path((namespace, run)): Path<(Name, RunId)>,
    listing: Listing<StateFilter>,
) -> Result<Answer<StateList>, Problem> {
    // A filter by message tells what a message is, letter by letter.
    if listing.filter.message.is_some() && !host.may_show_payloads() {
        let message = "this key may not see payloads, and so it may not search for a message; ask an \
                       admin for another key: `exosphere key create --payloads`";
        return Err(Problem::new(Kind::Forbidden, message));
    }
    let after = listing.after(|text| {
        let message = "this is not a cursor of a list of states; give `next` of the page before";
        path::Path::decode(text).map_err(|_| message)
    })?;
    let page = StatePageRequest { after, limit: listing.limit(), has_details: false };
    let (graph, page) = host.states(&namespace, run, &listing.filter, &page).await?;
    let states = page.items.into_iter().map(|state| views::state_summary(run, &graph, state));
    Ok(Answer(StateList { states: states.collect(), next: page.next }))
}

pub(crate) async fn show(
    State(host): State<Host>,
    Path((namespace, run, state)): Path<(Name, RunId, String)>,
) -> Result<Response, Problem> {
    let details = host.state(&namespace, run, &state).await?;
    let (state, permit) = views::state_details(details);
    Ok(answer::respond(&state, permit))
}

pub(crate) async fn why(
    State(host): State<Host>,
    Path((namespace, run, state)): Path<(Name, RunId, String)>,
) -> Result<Answer<StateWhy>, Problem> {
    Ok(Answer(host.why_state(&namespace, run, &state).await?))
}

pub(crate) async fn inputs(
    State(host): State<Host>,
    Path((namespace, run, state)): Path<(Name, RunId, String)>,
) -> Result<Response, Problem> {
    let (inputs, permit) = views::state_inputs(host.state_inputs(&namespace, run, &state).await?);
    Ok(answer::respond(&inputs, permit))
}

pub(crate) async fn outputs(
    State(host): State<Host>,
    Path((namespace, run, state)): Path<(Name, RunId, String)>,
    Query(OutputsQuery { after, limit }): Query<OutputsQuery>,
) -> Result<Response, Problem> {
    let range = (after.unwrap_or(0), full_page_size(limit));
    let page = host.state_outputs(&namespace, run, &state, range).await?;
    let (outputs, permit) = views::state_outputs(page, &state);
    Ok(answer::respond(&outputs, permit))
}

pub(crate) async fn retry(
    State(host): State<Host>,
    Path((namespace, run, state)): Path<(Name, RunId, String)>,
) -> Result<Response, Problem> {
    let (run, permit) = views::run_details(host.retry_state(&namespace, run, &state).await?);
    Ok(answer::respond(&run, permit))
}
