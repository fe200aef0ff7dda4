//! Resources of the host's process, as the system sees them: memory, descriptors, threads,
//! children.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// The resources of a process at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The number of open descriptors.
    pub descriptors: usize,
    /// The number of threads.
    pub threads: usize,
    /// The number of child processes.
    pub children: usize,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { descriptors, threads, children } = self;
        write!(f, "{descriptors} descriptors, {threads} threads, {children} children")
    }
}

/// A process, watched from outside.
#[derive(Debug, Clone, Copy)]
pub struct Watch(pub u32);

impl Watch {
    fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn tasks(self) -> Result<Vec<PathBuf>> {
        let tasks = fs::read_dir(self.path("task"))?;
        Ok(tasks.collect::<Result<Vec<_>, _>>()?.iter().map(fs::DirEntry::path).collect())
    }

    /// Returns the process's resources now.
    pub fn held(self) -> Result<Held> {
        let tasks = self.tasks()?;
        // A thread may end meanwhile.
        let children =
            |task: &PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
        Ok(Held {
            descriptors: fs::read_dir(self.path("fd"))?.count(),
            threads: tasks.len(),
            children: tasks.iter().map(|task| children(task).split_whitespace().count()).sum(),
        })
    }

    /// Returns kilobytes of memory: the present ones (`VmRSS`), or the maximum (`VmHWM`).
    pub fn kilobytes(self, what: &str) -> Result<i64> {
        let status = fs::read_to_string(self.path("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.with_context(|| format!("no {what}"))?.parse()?)
    }

    /// Returns the seconds of CPU time of the process, with all threads that it ever had, to a
    /// hundredth.
    pub fn cpu_seconds(self) -> Result<f64> {
        let stat = fs::read_to_string(self.path("stat"))?;
        let rest = stat.rsplit_once(')').context("no name in stat")?.1;
        let mut fields = rest.split_whitespace().skip(11);
        // Fields 14 and 15 of proc(5), in clock ticks of 10 ms.
        let mut ticks = || anyhow::Ok(fields.next().context("a short stat")?.parse::<f64>()?);
        Ok((ticks()? + ticks()?) / 100.0)
    }

    /// Returns the nanoseconds of CPU time of the process's threads, without those that ended.
    pub fn cpu_nanos(self) -> Result<u64> {
        let nanos = |task: &PathBuf| -> Option<u64> {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Ok(self.tasks()?.iter().filter_map(nanos).sum())
    }
}
