//! Tells a component that uses a switched-off WebAssembly proposal from a damaged one,
//! and names the proposal.

use wasmparser::{Error, Validator, WasmFeatures};

use crate::admission::error::{AdmissionError, invalid};
use crate::engine;

/// Returns the refusal of a component that the validator rejects.
pub(super) fn refusal(bytes: &[u8], error: &Error) -> AdmissionError {
    match error.missing_wasm_feature().or_else(|| missing(bytes)) {
        Some(proposal) => named(proposal, error),
        None => invalid(error),
    }
}

/// Returns the first proposal without which a component is not valid, for errors that
/// do not name it. `None` if the component is not valid with all proposals either.
fn missing(bytes: &[u8]) -> Option<WasmFeatures> {
    let valid = |features| Validator::new_with_features(features).validate_all(bytes).is_ok();
    let all = WasmFeatures::all();
    let disabled = all.difference(engine::ENABLED_FEATURES);
    valid(all).then(|| disabled.iter().find(|proposal| !valid(all.difference(*proposal))))?
}

fn named(proposal: WasmFeatures, error: &Error) -> AdmissionError {
    let name = proposal.iter_names().next().map_or("unknown", |(name, _)| name);
    AdmissionError::Proposal {
        proposal: name.to_ascii_lowercase().replace('_', "-"),
        cause: crate::admission::error::message_of(error),
    }
}
