//! Tells a component that uses what is off here from one that is damaged, and
//! names what it uses.

use wasmparser::{Error, Validator, WasmFeatures};

use crate::engine;
use crate::refused::{Refused, invalid};

/// What to say of a component that the validator refuses.
pub(super) fn refusal(bytes: &[u8], error: &Error) -> Refused {
    match error.missing_wasm_feature().or_else(|| missing(bytes)) {
        Some(proposal) => named(proposal, error),
        None => invalid(error),
    }
}

/// The first proposal without which a component is not valid, for errors that
/// do not say it. Nothing if it is not valid with all of them either.
fn missing(bytes: &[u8]) -> Option<WasmFeatures> {
    let valid = |features| Validator::new_with_features(features).validate_all(bytes).is_ok();
    let all = WasmFeatures::all();
    let off = all.difference(engine::ON);
    valid(all).then(|| off.iter().find(|proposal| !valid(all.difference(*proposal))))?
}

fn named(proposal: WasmFeatures, error: &Error) -> Refused {
    let name = proposal.iter_names().next().map_or("unknown", |(name, _)| name);
    Refused::Proposal {
        proposal: name.to_ascii_lowercase().replace('_', "-"),
        why: crate::refused::words(error),
    }
}
