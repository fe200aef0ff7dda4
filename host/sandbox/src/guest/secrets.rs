//! The secrets of one execution: the guest reads those that it may, and none of them
//! reaches the text that people read.
//!
//! Not here: the choice of the secrets, which the caller makes before an invocation;
//! and the patterns that find a secret in a text (`redact`).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

use exosphere_domain::failure::Failure;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::redact::Patterns;
use crate::sanitize::clean_lines;

/// The secrets of one execution, by name. Cheap to clone; the last clone wipes them
/// from memory.
#[derive(Clone, Default)]
pub struct Secrets(Option<Arc<SecretView>>);

/// A secret of an execution.
pub struct Secret {
    /// The value of the secret.
    pub value: Zeroizing<String>,
    /// Set if the guest may read the secret. Any other secret is redacted from the
    /// guest's output as well, since another node may have passed it on.
    pub is_visible: bool,
}

/// The secrets of a graph, as one execution may read them.
struct SecretView {
    all: Arc<SecretSet>,
    /// The names of the secrets that the guest may read.
    visible: BTreeSet<String>,
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
        self.patterns().memory_bytes()
    }

    fn patterns(&self) -> &Patterns {
        self.patterns.get_or_init(|| Patterns::new(&self.values))
    }
}

/// Shows the names alone.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().flat_map(|view| view.all.values.keys())).finish()
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
        for (name, Secret { value, is_visible }) in secrets {
            if is_visible {
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
        if all.values.is_empty() {
            Secrets(None)
        } else {
            Secrets(Some(Arc::new(SecretView { all, visible: shown })))
        }
    }

    /// Returns the value of a secret that the guest may read.
    pub(super) fn visible(&self, name: &str) -> Option<&str> {
        let view = self.0.as_ref()?;
        let value = view.all.values.get(name).filter(|_| view.visible.contains(name))?;
        Some(value.as_str())
    }

    /// Returns the patterns that find the secrets in a text; `None` if there are no
    /// secrets.
    pub(crate) fn patterns(&self) -> Option<&Patterns> {
        Some(self.0.as_deref()?.all.patterns())
    }

    /// Redacts the secrets of a cleaned text. Costs nothing if there are no secrets.
    pub fn redact<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        self.redact_text(text.into(), false)
    }

    /// Redacts the secrets of a cleaned text that was cut, and the beginning of a secret
    /// at its end.
    pub(crate) fn redact_cut<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        self.redact_text(text.into(), true)
    }

    fn redact_text<'a>(&self, text: Cow<'a, str>, is_cut: bool) -> Cow<'a, str> {
        let Some(patterns) = self.patterns() else { return text };
        match patterns.redact(&text, is_cut) {
            Cow::Owned(redacted) => Cow::Owned(redacted),
            Cow::Borrowed(_) => text,
        }
    }

    /// Redacts the secrets in the message and the details of a failure.
    pub(crate) fn redact_failure(&self, mut failure: Failure) -> Failure {
        if self.patterns().is_none() {
            return failure;
        }
        failure.message = self.redact(failure.message).into_owned();
        failure.details = failure.details.map(|details| self.redact_json(details));
        failure
    }

    /// Redacts the secrets of a text that is not cleaned. Without a secret in it, the
    /// text stays as it is.
    fn redact_uncleaned(&self, text: String) -> String {
        match self.redact(clean_lines(&text)) {
            redacted if redacted == clean_lines(&text) => text,
            redacted => redacted.into_owned(),
        }
    }

    fn redact_json(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.redact_uncleaned(text)),
            Value::Array(list) => list.into_iter().map(|value| self.redact_json(value)).collect(),
            Value::Object(map) => {
                let redact_entry =
                    |(key, value)| (self.redact_uncleaned(key), self.redact_json(value));
                Value::Object(map.into_iter().map(redact_entry).collect::<Map<_, _>>())
            }
            // A secret may be a number.
            Value::Number(number) => match self.redact(number.to_string()) {
                redacted if redacted == number.to_string() => Value::Number(number),
                redacted => Value::String(redacted.into_owned()),
            },
            value => value,
        }
    }
}
