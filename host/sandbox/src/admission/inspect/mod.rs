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
pub use summary::{CustomSection, Facts};

use crate::admission::error::{Refused, invalid};
use crate::engine;
use bounds::{Part, Tally};

/// Counts a component's parts and checks that it is valid.
///
/// # Errors
/// The first part that exceeds a bound, else what is invalid or switched off here.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Facts, Refused> {
    let facts = Count::default().all(bytes)?;
    let mut validator = Validator::new_with_features(engine::ON);
    match validator.validate_all(bytes) {
        Ok(_) => Ok(facts),
        Err(error) => Err(proposals::refusal(bytes, &error)),
    }
}

#[derive(Default)]
struct Count {
    tally: Tally,
    facts: Facts,
    depth: u64,
}

impl Count {
    fn all(mut self, bytes: &[u8]) -> Result<Facts, Refused> {
        for payload in Parser::new(0).parse_all(bytes) {
            self.payload(payload.map_err(|error| invalid(&error))?)?;
        }
        self.facts.functions = self.tally.of(Part::Functions);
        self.facts.core_modules = self.tally.of(Part::CoreModules);
        Ok(self.facts)
    }

    fn payload(&mut self, payload: Payload<'_>) -> Result<(), Refused> {
        let mut add = |part, count: u32| self.tally.add(part, u64::from(count));
        match payload {
            Payload::Version { encoding, .. } => self.begin(encoding),
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::TypeSection(of) => add(Part::Types, of.count()),
            Payload::CoreTypeSection(of) => add(Part::Types, of.count()),
            Payload::ComponentTypeSection(of) => add(Part::Types, of.count()),
            Payload::ImportSection(of) => add(Part::Imports, of.count()),
            Payload::ComponentImportSection(of) => add(Part::Imports, of.count()),
            Payload::ExportSection(of) => add(Part::Exports, of.count()),
            Payload::FunctionSection(of) => add(Part::Functions, of.count()),
            Payload::TableSection(of) => add(Part::Tables, of.count()),
            Payload::GlobalSection(of) => add(Part::Globals, of.count()),
            Payload::InstanceSection(of) => add(Part::CoreInstances, of.count()),
            Payload::ComponentInstanceSection(of) => add(Part::Instances, of.count()),
            Payload::ComponentAliasSection(of) => add(Part::Aliases, of.count()),
            Payload::ComponentCanonicalSection(of) => add(Part::Canonicals, of.count()),
            other => self.contents(other),
        }
    }

    /// Counts the parts of a payload whose contents count, too.
    fn contents(&mut self, payload: Payload<'_>) -> Result<(), Refused> {
        match payload {
            Payload::MemorySection(of) => {
                self.tally.add(Part::Memories, u64::from(of.count()))?;
                for memory in of {
                    let pages = memory.map_err(|error| invalid(&error))?.initial;
                    let bytes = pages.saturating_mul(PAGE_BYTES);
                    self.facts.memory_bytes = self.facts.memory_bytes.saturating_add(bytes);
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
                    self.tally.add(Part::Elements, u64::from(count).saturating_add(1))?;
                }
                Ok(())
            }
            Payload::DataSection(of) => {
                self.tally.add(Part::DataSegments, u64::from(of.count()))?;
                for segment in of {
                    let data = segment.map_err(|error| invalid(&error))?.data;
                    self.tally.add(Part::DataBytes, data.len() as u64)?;
                }
                Ok(())
            }
            Payload::CodeSectionEntry(body) => function::check(&body),
            Payload::ComponentExportSection(of) => {
                self.tally.add(Part::Exports, u64::from(of.count()))?;
                let names = of.into_iter().filter(|_| self.depth == 1).flatten();
                names.for_each(|export| self.facts.export(export.name.name));
                Ok(())
            }
            Payload::CustomSection(of) => {
                self.tally.add(Part::CustomSections, 1)?;
                self.facts.custom(of.name(), of.range().len() as u64);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, encoding: Encoding) -> Result<(), Refused> {
        self.depth += 1;
        Part::Depth.check(self.depth)?;
        match encoding {
            Encoding::Module => self.tally.add(Part::CoreModules, 1),
            Encoding::Component => self.tally.add(Part::Components, 1),
        }
    }
}

/// Bytes of a page of linear memory.
const PAGE_BYTES: u64 = 64 * 1024;
