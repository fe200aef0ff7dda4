//! Field picking: extracts the named fields of an output from its JSON text.
//! The other fields are parsed and never built.
//!
//! Not here: which fields a node names; see [`crate::graph`].

use std::collections::BTreeMap;

use serde_json::Value;

use super::JsonError;
use super::reader::{Mode, Reader, Rules};
use crate::json_size;
use crate::template::{element_index, lookup_path};

/// A set of field paths, none of which lies below another: a wanted field
/// includes all fields below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldSet {
    root: FieldStep,
    slots: usize,
}

/// One step on the path to wanted fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct FieldStep {
    /// The slot of the value at this path, if the value is wanted. Such a step has no further
    /// steps below it.
    slot: Option<usize>,
    members: BTreeMap<String, FieldStep>,
    /// Members that are array indices, in case the value is an array: index and name, in the
    /// order of the indices.
    elements: Vec<(usize, String)>,
}

/// The values of a [`FieldSet`] in one output.
#[derive(Debug, Clone, PartialEq)]
pub struct PickedFields(Box<[Option<Value>]>);

impl FieldSet {
    /// Builds the set of the given paths. The empty path is the whole output.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a [String]>) -> Self {
        let mut set = FieldSet::default();
        for path in paths {
            set.root.insert(path);
        }
        set.slots = set.root.number(0);
        set
    }

    /// Picks the fields out of a stored output, which has no duplicate keys. Subtracts their
    /// estimated memory from `bytes_left`.
    ///
    /// # Errors
    /// Malformed text; fields that need more memory than is left.
    pub fn pick(&self, text: &str, bytes_left: &mut u64) -> Result<PickedFields, JsonError> {
        let mut reader = Reader::new(text, Rules::LENIENT, *bytes_left).with_slots(self.slots)?;
        reader.document(Mode::Some(&self.root))?;
        *bytes_left = reader.bytes_left();
        Ok(PickedFields(reader.into_slots().into()))
    }

    /// Picks the fields out of a value that is already built.
    pub fn pick_from(&self, value: &Value) -> PickedFields {
        let mut slots = vec![None; self.slots];
        self.root.copy(value, &mut slots);
        PickedFields(slots.into())
    }

    /// Returns the picked value at a path. The set must have been built from
    /// that path.
    pub fn find<'a>(&self, picked: &'a PickedFields, path: &[String]) -> Option<&'a Value> {
        let mut step = &self.root;
        for (depth, field) in path.iter().enumerate() {
            if step.slot.is_some() {
                return lookup_path(picked.at(step)?, &path[depth..]);
            }
            step = step.members.get(field)?;
        }
        picked.at(step)
    }
}

impl PickedFields {
    fn at(&self, step: &FieldStep) -> Option<&Value> {
        self.0.get(step.slot?)?.as_ref()
    }

    /// Estimates the memory of the values, in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let values = self.0.iter().flatten().map(json_size::estimate_value);
        json_size::ITEM * self.0.len() as u64 + values.sum::<u64>()
    }
}

impl FieldStep {
    fn insert(&mut self, path: &[String]) {
        if self.slot.is_some() {
            return;
        }
        match path {
            [] => *self = FieldStep { slot: Some(0), ..FieldStep::default() },
            [field, rest @ ..] => match self.members.get_mut(field) {
                Some(member) => member.insert(rest),
                None => self.members.entry(field.clone()).or_default().insert(rest),
            },
        }
    }

    /// Numbers the slots from `next` on, and records which members are array
    /// elements. Returns the next free number.
    fn number(&mut self, mut next: usize) -> usize {
        if let Some(slot) = &mut self.slot {
            *slot = next;
            return next + 1;
        }
        for member in self.members.values_mut() {
            next = member.number(next);
        }
        let element = |field: &String| Some((element_index(field)?, field.clone()));
        self.elements = self.members.keys().filter_map(element).collect();
        self.elements.sort();
        next
    }

    pub(super) fn slot(&self) -> Option<usize> {
        self.slot
    }

    pub(super) fn member(&self, key: &str) -> Option<&FieldStep> {
        self.members.get(key)
    }

    /// Returns a lookup of the steps into an array's elements. It must be
    /// called with every index in turn, from 0.
    pub(super) fn elements<'f>(&'f self) -> impl FnMut(usize) -> Option<&'f FieldStep> + use<'f> {
        let mut rest = self.elements.iter().peekable();
        move |index| {
            let (_, field) = rest.next_if(|(field_index, _)| *field_index == index)?;
            self.members.get(field)
        }
    }

    fn copy(&self, value: &Value, slots: &mut [Option<Value>]) {
        if let Some(slot) = self.slot {
            slots[slot] = Some(value.clone());
            return;
        }
        for (field, step) in &self.members {
            if let Some(member) = lookup_path(value, std::slice::from_ref(field)) {
                step.copy(member, slots);
            }
        }
    }
}
