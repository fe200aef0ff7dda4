//! The secrets of one execution, and `exosphere:node/secrets`, which shows the guest
//! those that it may read.
//!
//! Not here: the choice of the secrets, which the caller makes before an invocation;
//! and keeping all of them out of what people read, which is in `redact`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::bindings::v0_1::exosphere::node::secrets as wit;
use crate::guest::state::Host;
use crate::redact::Patterns;

/// The secrets of one execution, by name. Cheap to clone; the last clone wipes them
/// from memory.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<Known>>);

/// A secret of an execution.
pub struct Secret {
    /// The value of the secret.
    pub value: Zeroizing<String>,
    /// Set if the guest may read the secret. A hidden secret is redacted from the
    /// guest's output as well, since another node may have passed it on.
    pub is_shown: bool,
}

struct Known {
    all: Arc<SecretSet>,
    /// The names of the secrets that the guest may read.
    shown: BTreeSet<String>,
}

/// All secrets of a graph, with the patterns that find them in a text. Its executions
/// share one set.
pub struct SecretSet {
    values: BTreeMap<String, Zeroizing<String>>,
    /// Made when there is a text to search: most executions print nothing.
    patterns: OnceLock<Patterns>,
}

impl SecretSet {
    /// Creates a set from values by name.
    pub fn new(values: BTreeMap<String, Zeroizing<String>>) -> Self {
        SecretSet { values, patterns: OnceLock::new() }
    }

    /// Returns the bytes of all values.
    pub fn bytes(&self) -> u64 {
        self.values.values().map(|value| value.len() as u64).sum()
    }

    /// Builds the patterns, unless they exist: milliseconds for large secrets. Returns
    /// their bytes of memory.
    pub fn prepare(&self) -> u64 {
        self.patterns().weight()
    }

    fn patterns(&self) -> &Patterns {
        self.patterns.get_or_init(|| Patterns::of(&self.values))
    }
}

/// Shows the names alone.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().flat_map(|known| known.all.values.keys())).finish()
    }
}

/// Shows the names alone.
impl fmt::Debug for SecretSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl FromIterator<(String, Secret)> for Secrets {
    fn from_iter<T: IntoIterator<Item = (String, Secret)>>(secrets: T) -> Self {
        let (mut values, mut shown) = (BTreeMap::new(), BTreeSet::new());
        for (name, Secret { value, is_shown }) in secrets {
            if is_shown {
                shown.insert(name.clone());
            }
            values.insert(name, value);
        }
        Secrets::new(Arc::new(SecretSet::new(values)), shown)
    }
}

impl Secrets {
    /// Creates the secrets of an execution that may read the names in `shown`.
    pub fn new(all: Arc<SecretSet>, shown: BTreeSet<String>) -> Self {
        match all.values.is_empty() {
            true => Secrets(None),
            false => Secrets(Some(Arc::new(Known { all, shown }))),
        }
    }

    /// Returns the value of a secret that the guest may read.
    fn shown(&self, name: &str) -> Option<&str> {
        let known = self.0.as_ref()?;
        let value = known.all.values.get(name).filter(|_| known.shown.contains(name))?;
        Some(value.as_str())
    }

    /// Returns the patterns that find the secrets in a text; `None` if there are no
    /// secrets.
    pub(crate) fn patterns(&self) -> Option<&Patterns> {
        Some(self.0.as_deref()?.all.patterns())
    }
}

impl wit::Host for Host {
    fn get(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.count_call()?;
        Ok(self.secrets.shown(&name).map(str::to_owned))
    }
}
