//! The secrets of one execution, and `exosphere:node/secrets`, which shows the
//! guest those that it may read. Which these are is decided before an invocation
//! is made, not here; how all of them are kept out of what people read is in
//! `redact`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use zeroize::Zeroizing;

use crate::bindings::v0_1::exosphere::node::secrets as wit;
use crate::host::Host;
use crate::redact::Patterns;

/// Secrets of one execution, by name. Cheap to clone; they are wiped from memory with
/// the last clone.
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
    all: Arc<SecretSet>,
    /// Names of those that the guest may read.
    shown: BTreeSet<String>,
}

/// All secrets of a graph, with what finds them in a text. Its executions share one.
pub struct SecretSet {
    values: BTreeMap<String, Zeroizing<String>>,
    /// Made when there is something to look through: most executions say
    /// nothing.
    patterns: OnceLock<Patterns>,
}

impl SecretSet {
    /// A set of values by name.
    pub fn new(values: BTreeMap<String, Zeroizing<String>>) -> Self {
        SecretSet { values, patterns: OnceLock::new() }
    }

    /// Bytes of all values.
    pub fn bytes(&self) -> u64 {
        self.values.values().map(|value| value.len() as u64).sum()
    }

    /// Makes what finds them, unless it is there: milliseconds for large ones. Gives
    /// the bytes of memory that it takes.
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
    /// The secrets of a graph for an execution that may read those of the names in
    /// `shown`.
    pub fn new(all: Arc<SecretSet>, shown: BTreeSet<String>) -> Self {
        match all.values.is_empty() {
            true => Secrets(None),
            false => Secrets(Some(Arc::new(Known { all, shown }))),
        }
    }

    /// The value of a secret that the guest may read.
    fn shown(&self, name: &str) -> Option<&str> {
        let known = self.0.as_ref()?;
        let value = known.all.values.get(name).filter(|_| known.shown.contains(name))?;
        Some(value.as_str())
    }

    /// What finds them in a text; nothing where there are none.
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
