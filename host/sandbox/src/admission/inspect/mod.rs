//! Counts and checks the parts of an upload before anything is compiled: compiling
//! takes time and memory, and a small upload can make it take any amount of both.
//!
//! Runs in the process that compiles. Not here: the check against the contract, which
//! the engine's linker does.

mod bounds;
mod function;
mod proposals;
mod summary;

use wasmparser::{Encoding, Parser, Payload, Validator};

pub(crate) use bounds::too_many;
pub use summary::{ComponentSummary, CustomSection};

use crate::admission::error::{AdmissionError, invalid};
use crate::engine;
use bounds::{Part, PartCounts};

/// Counts a component's parts and checks that it is valid.
///
/// # Errors
/// The first part that exceeds a bound, else what is invalid or switched off here.
pub(crate) fn inspect(bytes: &[u8]) -> Result<ComponentSummary, AdmissionError> {
    let summary = PartCounter::default().count_all(bytes)?;
    let mut validator = Validator::new_with_features(engine::ENABLED_FEATURES);
    match validator.validate_all(bytes) {
        Ok(_) => Ok(summary),
        Err(error) => Err(proposals::refusal(bytes, &error)),
    }
}

#[derive(Default)]
struct PartCounter {
    counts: PartCounts,
    summary: ComponentSummary,
    depth: u64,
}

impl PartCounter {
    fn count_all(mut self, bytes: &[u8]) -> Result<ComponentSummary, AdmissionError> {
        for payload in Parser::new(0).parse_all(bytes) {
            self.payload(payload.map_err(|error| invalid(&error))?)?;
        }
        self.summary.functions = self.counts.get(Part::Functions);
        self.summary.core_modules = self.counts.get(Part::CoreModules);
        Ok(self.summary)
    }

    fn payload(&mut self, payload: Payload<'_>) -> Result<(), AdmissionError> {
        let mut add = |part, count: u32| self.counts.add(part, u64::from(count));
        match payload {
            Payload::Version { encoding, .. } => self.begin(encoding),
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::TypeSection(section) => add(Part::Types, section.count()),
            Payload::CoreTypeSection(section) => add(Part::Types, section.count()),
            Payload::ComponentTypeSection(section) => add(Part::Types, section.count()),
            Payload::ImportSection(section) => add(Part::Imports, section.count()),
            Payload::ComponentImportSection(section) => add(Part::Imports, section.count()),
            Payload::ExportSection(section) => add(Part::Exports, section.count()),
            Payload::FunctionSection(section) => add(Part::Functions, section.count()),
            Payload::TableSection(section) => add(Part::Tables, section.count()),
            Payload::GlobalSection(section) => add(Part::Globals, section.count()),
            Payload::InstanceSection(section) => add(Part::CoreInstances, section.count()),
            Payload::ComponentInstanceSection(section) => add(Part::Instances, section.count()),
            Payload::ComponentAliasSection(section) => add(Part::Aliases, section.count()),
            Payload::ComponentCanonicalSection(section) => add(Part::Canonicals, section.count()),
            other => self.contents(other),
        }
    }

    /// Counts the parts of a payload whose contents count, too.
    fn contents(&mut self, payload: Payload<'_>) -> Result<(), AdmissionError> {
        match payload {
            Payload::MemorySection(of) => {
                self.counts.add(Part::Memories, u64::from(of.count()))?;
                for memory in of {
                    let pages = memory.map_err(|error| invalid(&error))?.initial;
                    let bytes = pages.saturating_mul(PAGE_BYTES);
                    self.summary.memory_bytes = self.summary.memory_bytes.saturating_add(bytes);
                }
                Ok(())
            }
            Payload::ElementSection(of) => {
                for segment in of {
                    let items = segment.map_err(|error| invalid(&error))?.items;
                    let count = match items {
                        wasmparser::ElementItems::Functions(of) => of.count(),
                        wasmparser::ElementItems::Expressions(_, of) => of.count(),
                    };
                    // The segment itself is counted too, so that empty segments are not
                    // free.
                    self.counts.add(Part::Elements, u64::from(count).saturating_add(1))?;
                }
                Ok(())
            }
            Payload::DataSection(of) => {
                self.counts.add(Part::DataSegments, u64::from(of.count()))?;
                for segment in of {
                    let data = segment.map_err(|error| invalid(&error))?.data;
                    self.counts.add(Part::DataBytes, data.len() as u64)?;
                }
                Ok(())
            }
            Payload::CodeSectionEntry(body) => function::check_function(&body),
            Payload::ComponentExportSection(of) => {
                self.counts.add(Part::Exports, u64::from(of.count()))?;
                let names = of.into_iter().filter(|_| self.depth == 1).flatten();
                names.for_each(|export| self.summary.add_export(export.name.name));
                Ok(())
            }
            Payload::CustomSection(of) => {
                self.counts.add(Part::CustomSections, 1)?;
                self.summary.add_custom_section(of.name(), of.range().len() as u64);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, encoding: Encoding) -> Result<(), AdmissionError> {
        self.depth += 1;
        Part::Depth.check(self.depth)?;
        match encoding {
            Encoding::Module => self.counts.add(Part::CoreModules, 1),
            Encoding::Component => self.counts.add(Part::Components, 1),
        }
    }
}

/// Bytes of a page of linear memory.
const PAGE_BYTES: u64 = 64 * 1024;
