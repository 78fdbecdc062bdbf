//! What this process uses of the machine, where the system tells.

use std::time::Duration;

/// One tick in which Linux counts processor time for programs.
const TICK: Duration = Duration::from_millis(10);

/// Processor time so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ProcessorTime {
    /// Of all threads.
    pub all: Duration,
    /// Of those that make the load and play the gateways.
    pub load: Duration,
}

impl ProcessorTime {
    /// Reads it; threads of a name belong to the load.
    pub fn now(load_thread: &str) -> Option<Self> {
        let all = ticks(&std::fs::read_to_string("/proc/self/stat").ok()?)?;
        let threads = std::fs::read_dir("/proc/self/task").ok()?.flatten();
        let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
        let of_load = |stat: &String| name(stat) == Some(load_thread);
        let load: u32 = stats.filter(of_load).filter_map(|stat| ticks(&stat)).sum();
        Some(Self {
            all: TICK * all,
            load: TICK * load,
        })
    }

    /// What was used since an earlier moment, of the load and of the rest.
    pub fn since(self, earlier: Self) -> (Duration, Duration) {
        let load = self.load.saturating_sub(earlier.load);
        let all = self.all.saturating_sub(earlier.all);
        (load, all.saturating_sub(load))
    }
}

/// Processor time of another process so far.
pub(super) fn processor_time(id: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    Some(TICK * ticks(&stat)?)
}

/// Memory of another process without pages of files, in bytes.
pub(super) fn own_memory(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1_024)
}

/// The name of a process or thread, in parentheses, which may hold any.
fn name(stat: &str) -> Option<&str> {
    Some(&stat[stat.find('(')? + 1..stat.rfind(')')?])
}

/// The ticks that a process or thread used, in its own code and in the system's: the 14th and the 15th word.
fn ticks(stat: &str) -> Option<u32> {
    let rest = &stat[stat.rfind(')')? + 1..];
    let words: Vec<&str> = rest.split_whitespace().skip(11).take(2).collect();
    let [own, system] = words[..] else { return None };
    Some(own.parse::<u32>().ok()? + system.parse::<u32>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_and_ticks_are_found_whatever_the_name_holds() {
        let stat = "4711 (a ) (b) S 1 4711 4711 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 3 0 99 1 1";
        assert_eq!(name(stat), Some("a ) (b"));
        assert_eq!(ticks(stat), Some(175));
        assert_eq!(ticks("4711 (a) S"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_time_and_none_of_it_for_a_load_that_is_not_there() {
        let now = ProcessorTime::now("no such thread").expect("Linux tells");
        assert_eq!(now.load, Duration::ZERO);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_a_process_uses_is_known_until_it_has_ended() {
        let own = std::process::id();
        assert!(own_memory(own).is_some_and(|bytes| bytes > 100_000));
        assert!(processor_time(own).is_some());
        assert_eq!((own_memory(u32::MAX), processor_time(u32::MAX)), (None, None));
    }
}
