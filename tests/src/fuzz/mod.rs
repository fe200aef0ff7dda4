//! Fuzzing: mutates seed inputs for the four readers of untrusted input, in this process, and for a
//! whole host (`budget`). A panic, an abort or a broken promise leaves its input in
//! `tests/fuzz/crashes/`.
//!
//! The mutator has a seed: equal seeds try equal inputs.

mod mutate;
mod graph;
mod template;
mod upload;
mod completion;
mod budget;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use mutate::Mutator;

use crate::checkout;

/// A reader of untrusted input.
pub trait Target {
    /// Draws an input of this target.
    fn input(&mut self, mutator: &mut Mutator) -> Vec<u8>;

    /// Tries an input.
    ///
    /// # Errors
    /// The promise that was broken.
    fn attempt(&mut self, input: &[u8]) -> Result<Acceptance>;
}

/// The answer of a target to an input that broke no promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// The input was accepted.
    Accepted,
    /// The input was rejected.
    Rejected,
}

/// The targets by their names.
pub const TARGETS: [&str; 5] = ["graph", "template", "upload", "completion", "budget"];

/// Returns the target of a name.
///
/// # Errors
/// If there is none, or its seeds cannot be read.
pub fn target(name: &str) -> Result<Box<dyn Target>> {
    Ok(match name {
        "graph" => Box::new(graph::Graphs::new()?),
        "template" => Box::new(template::Templates::new()?),
        "upload" => Box::new(upload::Uploads::new()?),
        "completion" => Box::new(completion::Completions::new()?),
        "budget" => Box::new(budget::Budgets::new()?),
        _ => bail!("unknown target {name:?}; the targets are {}", TARGETS.join(", ")),
    })
}

/// Counts of the tried inputs.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tried {
    /// The number of inputs.
    pub inputs: u64,
    /// The number of accepted inputs.
    pub accepted: u64,
}

/// Tries random inputs for the given time.
///
/// # Errors
/// The promise that an input broke, and how to repeat it.
pub fn run(name: &str, seed: u64, time: Duration) -> Result<Tried> {
    let mut target = target(name)?;
    let mut mutator = Mutator::new(seed);
    let crash_file = CrashFile::new(name)?;
    let end = Instant::now() + time;
    let mut counts = Tried::default();
    while Instant::now() < end {
        let input = target.input(&mut mutator);
        crash_file.write(&input)?;
        match try_input(&mut *target, &input) {
            Ok(outcome) => counts.accepted += u64::from(outcome == Acceptance::Accepted),
            Err(error) => {
                let file = crash_file.keep(&input)?;
                bail!(
                    "input {} of --seed {seed} broke a promise: {error:#}\nto try it again: cargo \
                     run -p exosphere-tests --bin fuzz -- {name} --input {}",
                    counts.inputs,
                    file.display()
                );
            }
        }
        counts.inputs += 1;
    }
    crash_file.end()?;
    Ok(counts)
}

/// Runs the command line `[--seconds N] [--seed N] [--input FILE]`.
///
/// # Errors
/// The promise that an input broke, and how to repeat it.
pub fn command(target: &str, mut arguments: impl Iterator<Item = String>) -> Result<()> {
    let (mut seconds, mut seed) = (60, None);
    while let Some(option) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{option} needs a value"))?;
        match option.as_str() {
            "--seconds" => seconds = value.parse()?,
            "--seed" => seed = Some(value.parse()?),
            "--input" => {
                println!("{:?}", repeat(target, Path::new(&value))?);
                return Ok(());
            }
            _ => bail!("unknown option {option}; the options are --seconds, --seed and --input"),
        }
    }
    #[expect(clippy::disallowed_methods, reason = "the seed is printed, and can be given")]
    let seed = seed.unwrap_or_else(rand::random);
    println!("{target} --seed {seed}");
    let counts = run(target, seed, Duration::from_secs(seconds))?;
    println!("{} inputs in {seconds} s, {} of them accepted", counts.inputs, counts.accepted);
    Ok(())
}

/// Tries one input from a file.
///
/// # Errors
/// The promise that it breaks.
pub fn repeat(name: &str, file: &Path) -> Result<Acceptance> {
    let input = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    try_input(&mut *target(name)?, &input)
}

/// Tries an input. A panic is a broken promise.
fn try_input(target: &mut dyn Target, input: &[u8]) -> Result<Acceptance> {
    let result = catch_unwind(AssertUnwindSafe(|| target.attempt(input)));
    result.unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        bail!("panicked: {}", message.unwrap_or("without a message"))
    })
}

/// A file with the current input, which remains if the process aborts.
struct CrashFile {
    name: String,
    folder: PathBuf,
    path: PathBuf,
    file: File,
}

impl CrashFile {
    fn new(name: &str) -> Result<CrashFile> {
        let folder = checkout().join("tests/fuzz/crashes");
        fs::create_dir_all(&folder)?;
        // One file for each process, since tests run in parallel.
        let path = folder.join(format!("{name}-{}.running", std::process::id()));
        let file = File::create(&path)?;
        Ok(CrashFile { name: name.to_owned(), folder, path, file })
    }

    fn write(&self, input: &[u8]) -> Result<()> {
        self.file.set_len(input.len() as u64)?;
        Ok(self.file.write_all_at(input, 0)?)
    }

    fn keep(&self, input: &[u8]) -> Result<PathBuf> {
        let digest = exosphere_domain::ids::Digest::from_content(input).to_string();
        let file = self.folder.join(format!("{}-{}", self.name, &digest[..16]));
        fs::write(&file, input)?;
        fs::remove_file(&self.path)?;
        Ok(file)
    }

    fn end(self) -> Result<()> {
        Ok(fs::remove_file(self.path)?)
    }
}

/// Reads the seeds of a target: the files of a folder, in order of their names.
fn seeds(name: &str) -> Result<Vec<Vec<u8>>> {
    let folder = checkout().join("tests/fuzz/seeds").join(name);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("no {}", folder.display()))? {
        files.push(entry?.path());
    }
    files.sort();
    files.iter().map(|file| Ok(fs::read(file)?)).collect()
}
