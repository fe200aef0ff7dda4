//! The figures of this process, under the names that every program with metrics uses. Some of
//! them are known on Linux only.

use std::fmt;
use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::text::Families;

/// Writes the figures. `started_at` is the start of the process, in seconds since 1970.
pub(super) fn write(families: &mut Families<'_, '_>, started_at: f64) -> fmt::Result {
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    families.counters("process_cpu_seconds", "CPU time of the process.", |series| {
        series.seconds(&[], cpu_seconds)
    })?;
    let help = "Start of the process, in seconds since 1970.";
    families.gauge("process_start_time_seconds", help, started_at)?;
    if let Some(descriptors) = getrlimit(Resource::Nofile).current {
        let help = "Number of files that the process may open.";
        families.gauge("process_max_fds", help, descriptors as f64)?;
    }
    if let Some(bytes) = resident_bytes() {
        families.gauge("process_resident_memory_bytes", "Memory of the process.", bytes as f64)?;
    }
    match fs::read_dir("/proc/self/fd") {
        // One of them is the folder itself.
        Ok(open) => {
            let count = open.count().saturating_sub(1);
            families.gauge("process_open_fds", "Number of open files.", count as f64)
        }
        Err(_) => Ok(()),
    }
}

fn resident_bytes() -> Option<u64> {
    resident_in(&fs::read_to_string("/proc/self/status").ok()?)
}

/// Finds the resident memory in the text of a status.
fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::resident_in;

    #[test]
    fn resident_memory_is_read_from_a_status() {
        assert_eq!(resident_in("VmHWM:\t 9 kB\nVmRSS:\t   2048 kB\n"), Some(2 << 20));
        assert_eq!(resident_in("VmRSS: many kB\n"), None);
        assert_eq!(resident_in(""), None);
    }
}
