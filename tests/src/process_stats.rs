//! Process statistics of a host, read from `/proc`: memory, CPU time, descriptors, threads and
//! children.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

/// A snapshot of the resources of a process.
#[derive(Debug, Clone, Copy)]
pub struct ProcessResources {
    /// The number of open descriptors.
    pub descriptors: usize,
    /// The number of threads.
    pub threads: usize,
    /// The number of child processes.
    pub children: usize,
}

impl fmt::Display for ProcessResources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProcessResources { descriptors, threads, children } = self;
        write!(f, "{descriptors} descriptors, {threads} threads, {children} children")
    }
}

/// The statistics of a process, by its id.
#[derive(Debug, Clone, Copy)]
pub struct ProcessStats(pub u32);

impl ProcessStats {
    fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn tasks(self) -> Result<Vec<PathBuf>> {
        let tasks = fs::read_dir(self.path("task"))?;
        Ok(tasks.collect::<Result<Vec<_>, _>>()?.iter().map(fs::DirEntry::path).collect())
    }

    /// Returns the current resources of the process.
    pub fn resources(self) -> Result<ProcessResources> {
        let tasks = self.tasks()?;
        // The thread may have ended.
        let children =
            |task: &PathBuf| fs::read_to_string(task.join("children")).unwrap_or_default();
        Ok(ProcessResources {
            descriptors: fs::read_dir(self.path("fd"))?.count(),
            threads: tasks.len(),
            children: tasks.iter().map(|task| children(task).split_whitespace().count()).sum(),
        })
    }

    /// Returns kilobytes of memory: the current (`VmRSS`) or the maximum (`VmHWM`).
    pub fn memory_kb(self, field: &str) -> Result<i64> {
        let status = fs::read_to_string(self.path("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.with_context(|| format!("/proc has no {field}"))?.parse()?)
    }

    /// Returns the seconds of CPU time of the process, with ended threads, to a hundredth.
    pub fn cpu_seconds(self) -> Result<f64> {
        let stat = fs::read_to_string(self.path("stat"))?;
        let rest = stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1;
        let mut fields = rest.split_whitespace().skip(11);
        // Fields 14 and 15 of proc(5), in clock ticks of 10 ms.
        let mut ticks =
            || anyhow::Ok(fields.next().context("/proc/PID/stat is too short")?.parse::<f64>()?);
        Ok((ticks()? + ticks()?) / 100.0)
    }

    /// Returns the nanoseconds of CPU time of the process, without ended threads.
    pub fn cpu_nanos(self) -> Result<u64> {
        let nanos = |task: &PathBuf| -> Option<u64> {
            let text = fs::read_to_string(task.join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse().ok()
        };
        Ok(self.tasks()?.iter().filter_map(nanos).sum())
    }
}
