//! What was seen of a component, for whoever uploaded it to know.

use serde::{Deserialize, Serialize};

use crate::text::{clean_line, cut};

/// What a component is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Core modules in it.
    pub core_modules: u64,
    /// Functions in it.
    pub functions: u64,
    /// Bytes of memory that its modules ask for at their start, each counted
    /// once.
    pub memory_bytes: u64,
    /// What it exports: the first few names.
    pub exports: Vec<String>,
    /// Its custom sections, those of one name together: the first few names.
    pub custom: Vec<CustomSection>,
}

impl exosphere_domain::json::Typed for Facts {}

/// Custom sections of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CustomSection {
    /// Their name.
    pub name: String,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// Names that are kept, of each kind, and bytes of each.
const NAMES: usize = 64;
const NAME_BYTES: usize = 128;

impl Facts {
    pub(super) fn export(&mut self, name: &str) {
        if self.exports.len() < NAMES {
            self.exports.push(clean_line(cut(name, NAME_BYTES)));
        }
    }

    pub(super) fn custom(&mut self, name: &str, bytes: u64) {
        let name = clean_line(cut(name, NAME_BYTES));
        let known = self.custom.len();
        match self.custom.iter_mut().find(|section| section.name == name) {
            Some(section) => section.bytes = section.bytes.saturating_add(bytes),
            None if known < NAMES => self.custom.push(CustomSection { name, bytes }),
            None => {}
        }
    }
}
