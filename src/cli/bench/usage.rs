//! What a process has used, as Linux counts it (proc(5)).

use std::fs;
use std::io;

/// What a process has used since it began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Seconds of user and system time.
    pub(super) cpu: f64,
    /// The most memory that it had at a time.
    pub(super) peak: u64,
    /// Bytes that it had written to disks.
    pub(super) written: u64,
}

/// Of a process whose files we may read: one of our own.
pub(super) fn of(pid: u32) -> io::Result<Usage> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let written = fs::read_to_string(format!("/proc/{pid}/io"))?;
    // The kernel says kB and means KiB.
    let peak = field(&status, "VmHWM:") * 1024;
    Ok(Usage { cpu: cpu(pid)?, peak, written: field(&written, "write_bytes:") })
}

/// Seconds of user and system time (`stat`, fields 14 and 15) of any process.
pub(super) fn cpu(pid: u32) -> io::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name stands in parentheses and may have any letters.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn our_own_process_has_memory() {
        let usage = super::of(std::process::id()).expect("our own files");
        assert!(usage.peak > 1 << 20, "{usage:?}");
    }
}
