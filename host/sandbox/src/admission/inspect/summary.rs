//! A summary of a component, for its author.

use serde::{Deserialize, Serialize};

use crate::sanitize::{clean_line, cut};

/// The counted parts and the names of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentSummary {
    /// The number of core modules.
    pub core_modules: u64,
    /// The number of functions.
    pub functions: u64,
    /// Bytes of initial memory of the modules, each counted once.
    pub memory_bytes: u64,
    /// The exports: the first few names.
    pub exports: Vec<String>,
    /// The custom sections, grouped by name: the first few names.
    pub custom: Vec<CustomSection>,
}

impl exosphere_domain::json::Typed for ComponentSummary {}

/// The custom sections of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomSection {
    /// The name that the sections share.
    pub name: String,
    /// The size of all the sections together, in bytes.
    pub bytes: u64,
}

/// Maximum number of names that are kept of each kind, and maximum bytes of each.
const MAX_NAMES: usize = 64;
const MAX_NAME_BYTES: usize = 128;

impl ComponentSummary {
    pub(super) fn add_export(&mut self, name: &str) {
        if self.exports.len() < MAX_NAMES {
            self.exports.push(clean_line(cut(name, MAX_NAME_BYTES)));
        }
    }

    pub(super) fn add_custom_section(&mut self, name: &str, bytes: u64) {
        let name = clean_line(cut(name, MAX_NAME_BYTES));
        let known = self.custom.len();
        match self.custom.iter_mut().find(|section| section.name == name) {
            Some(section) => section.bytes = section.bytes.saturating_add(bytes),
            None if known < MAX_NAMES => self.custom.push(CustomSection { name, bytes }),
            None => {}
        }
    }
}
