//! Memory of the process: how much a command may use, and how much it has used.

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Returns the default of `--memory` in bytes: half of the memory of the machine or, if it is less, of the container.
/// `None` if it is not known.
pub(crate) fn default_budget() -> Option<usize> {
    let system =
        System::new_with_specifics(RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram()));
    let container = system.cgroup_limits().map(|limits| limits.total_memory);
    budget_of(system.total_memory(), container)
}

/// Returns half of the smaller number; 0 means that a number is not known.
fn budget_of(machine: u64, container: Option<u64>) -> Option<usize> {
    let all = [Some(machine), container].into_iter().flatten().filter(|bytes| *bytes > 0).min()?;
    usize::try_from(all / 2).ok()
}

/// Returns the peak memory of the process in bytes, or `None` on systems without `/proc`.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    // `VmHWM` (high water mark of the resident set) is in kB.
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budget_is_half_of_what_machine_and_container_allow() {
        let of = |machine, container: Option<u64>| budget_of(machine, container);
        assert_eq!((of(8 << 30, None), of(8 << 30, Some(2 << 30))), (Some(4 << 30), Some(1 << 30)));
        // A container without a limit has the memory of the machine, or an absurd number.
        assert_eq!((of(8 << 30, Some(u64::MAX)), of(8 << 30, Some(0))), (Some(4 << 30), Some(4 << 30)));
        assert_eq!(of(0, None), None);
        assert_eq!(default_budget().is_some_and(|bytes| bytes > 1 << 20), sysinfo::IS_SUPPORTED_SYSTEM);
    }
}
