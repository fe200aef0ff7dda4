//! The secrets of one execution, and `exosphere:node/secrets`, which shows the
//! guest those that it may read. Which these are is decided before an invocation
//! is made, not here; how all of them are kept out of what people read is in
//! `redact`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::bindings::v0_1::exosphere::node::secrets as wit;
use crate::host::Host;
use crate::redact::Patterns;

/// Secrets by name. Cheap to clone; they are wiped from memory with the last
/// clone.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<Known>>);

/// A secret, as an execution has to do with it.
pub struct Secret {
    /// Its value.
    pub value: Zeroizing<String>,
    /// Whether the guest may read it. One that it may not read is kept out of
    /// its words all the same: another node may have handed it on.
    pub is_shown: bool,
}

struct Known {
    secrets: BTreeMap<String, Secret>,
    /// Made when there is something to look through: most executions say
    /// nothing.
    patterns: OnceLock<Patterns>,
}

/// Shows the names alone.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().flat_map(|known| known.secrets.keys())).finish()
    }
}

impl FromIterator<(String, Secret)> for Secrets {
    fn from_iter<T: IntoIterator<Item = (String, Secret)>>(secrets: T) -> Self {
        let secrets: BTreeMap<_, _> = secrets.into_iter().collect();
        match secrets.is_empty() {
            true => Secrets(None),
            false => Secrets(Some(Arc::new(Known { secrets, patterns: OnceLock::new() }))),
        }
    }
}

impl Secrets {
    /// The value of a secret that the guest may read.
    fn shown(&self, name: &str) -> Option<&str> {
        let secret = self.0.as_ref()?.secrets.get(name)?;
        secret.is_shown.then_some(secret.value.as_str())
    }

    /// What finds them in a text; nothing where there are none.
    pub(crate) fn patterns(&self) -> Option<&Patterns> {
        let known = self.0.as_deref()?;
        Some(known.patterns.get_or_init(|| Patterns::of(&known.secrets)))
    }
}

impl wit::Host for Host {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.secrets.shown(&name).map(str::to_owned))
    }
}
