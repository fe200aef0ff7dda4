//! The secrets that one execution may see, and `exosphere:node/secrets`, which
//! shows them to the guest. Which node may see which is decided before an
//! invocation is made, not here; how they are kept out of what people read is
//! in `redact`.

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

struct Known {
    values: BTreeMap<String, Zeroizing<String>>,
    /// Made when there is something to look through: most executions say
    /// nothing.
    patterns: OnceLock<Patterns>,
}

/// Shows the names alone.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().flat_map(|known| known.values.keys())).finish()
    }
}

impl FromIterator<(String, Zeroizing<String>)> for Secrets {
    fn from_iter<T: IntoIterator<Item = (String, Zeroizing<String>)>>(secrets: T) -> Self {
        let values: BTreeMap<_, _> = secrets.into_iter().collect();
        match values.is_empty() {
            true => Secrets(None),
            false => Secrets(Some(Arc::new(Known { values, patterns: OnceLock::new() }))),
        }
    }
}

impl Secrets {
    /// A secret's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.as_ref()?.values.get(name).map(|value| value.as_str())
    }

    /// What finds them in a text; nothing where there are none.
    pub(crate) fn patterns(&self) -> Option<&Patterns> {
        let known = self.0.as_deref()?;
        Some(known.patterns.get_or_init(|| Patterns::of(&known.values)))
    }
}

impl wit::Host for Host {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.secrets.get(&name).map(str::to_owned))
    }
}
