// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds what a kernel reports about itself: oopses, warnings, and the findings of its
//! debugging tools. Any of them fails a run, whatever the command in the guest said.

use std::mem;

/// How a report begins, at the start of a line of the kernel's log.
const BEGINNINGS: [&str; 18] = [
    // Memory that is misused (KASAN, SLUB), data races (KCSAN), sleeping in atomic context, …
    "BUG",
    "kernel BUG at ",
    // What the code itself finds, lockdep among it, and its other way to begin
    "WARNING: ",
    "[ BUG: ",
    "INFO: trying to register non-static key",
    "ODEBUG: ",
    "UBSAN: ",
    "list_add corruption",
    "list_del corruption",
    "rust_kernel: panicked at ",
    "sysfs: cannot create duplicate filename",
    // Faults of the processor
    "Oops:",
    "Internal error: ",
    "general protection fault",
    "divide error: ",
    "invalid opcode: ",
    "Kernel panic - not syncing",
    "INFO: task ",
];

/// What only a report says, wherever it says it.
const SIGNS: [&str; 5] = [
    "something is seriously wrong",
    "BUG: soft lockup",
    "detected hard LOCKUP",
    "INFO: rcu_",
    "new suspected memory leaks",
];

/// How many lines of a report are kept; more than the longest stack trace.
const KEPT: usize = 60;

/// How the report of a data race begins, and ends. The kernel has more data races than anybody has
/// looked after; those with the driver, or one of the selftests' modules, on a stack are ours.
const DATA_RACE: &str = "BUG: KCSAN: ";
const DATA_RACE_END: &str = "=====";
const OURS: &str = "sysgenid";
/// What the kernel does with state that is its own, whoever has called it: the log's buffer has no
/// locks, and races with its readers; `capable()` writes the flags of the task, which the scheduler
/// reads, and so do the scheduler's own entries; the random number generator looks at the clock, and
/// an event is sent from lists that everybody listens on; and what an exception or an interrupt does
/// is not the work of what it came upon.
const KERNELS_OWN: [&str; 8] = [
    " _printk+",
    " capable+",
    " schedule+",
    " try_to_wake_up+",
    " random_ioctl+",
    " add_device_randomness+",
    " kobject_uevent_env+",
    " asm_",
];
/// What the line above each of its stacks says.
const ABOVE_STACK: &str = " bytes by ";

/// Watches a kernel's log line by line.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    report: Vec<String>,
    /// The lines of a data race, while it is not known whose it is.
    data_race: Vec<String>,
}

impl Watch {
    /// Looks at a record of /dev/kmsg: `priority,sequence,time,flags;text`, and lines of
    /// key=value pairs, each after a space.
    pub fn record(&mut self, record: &str) {
        let text = record.split_once(';').map_or(record, |(_, text)| text);
        if let Some(line) = text.lines().next() {
            self.line(line);
        }
    }

    /// Looks at what kmemleak shows: nothing, or what it has found, from the first line on.
    pub fn leaks(&mut self, leaks: &str) {
        let left = KEPT.saturating_sub(self.report.len());
        self.report
            .extend(leaks.lines().take(left).map(str::to_owned));
    }

    /// Looks at the console, whose lines begin with a time in brackets.
    pub fn console(&mut self, console: &str) {
        for line in console.lines() {
            let text = line
                .strip_prefix('[')
                .and_then(|line| line.split_once("] "))
                .map_or(line, |(_, text)| text);
            self.line(text);
        }
    }

    fn line(&mut self, line: &str) {
        let begins = BEGINNINGS.iter().any(|start| line.starts_with(start));
        let says = SIGNS.iter().any(|sign| line.contains(sign));
        let races = line.starts_with(DATA_RACE) || (!self.data_race.is_empty() && !begins);
        if races && self.report.is_empty() {
            self.data_race_line(line);
        } else if (begins || says || !self.report.is_empty()) && self.report.len() < KEPT {
            self.report.push(line.trim_end().to_owned());
        }
    }

    fn data_race_line(&mut self, line: &str) {
        if line.starts_with(DATA_RACE_END) {
            self.data_race.clear();
            return;
        }
        self.data_race.push(line.trim_end().to_owned());
        if self.is_ours(line) {
            self.report = mem::take(&mut self.data_race);
        }
    }

    /// Whether the last line of a data race, which is this one, shows that it is ours.
    fn is_ours(&self, line: &str) -> bool {
        // A stack is indented, and begins with what was called last. Lines that are not may be what
        // another processor has to say meanwhile.
        let kernels_own = || {
            let above = self.data_race.iter().rev();
            above
                .take_while(|line| !line.contains(ABOVE_STACK))
                .any(|line| KERNELS_OWN.iter().any(|start| line.starts_with(start)))
        };
        line.contains(OURS)
            && (line.starts_with(DATA_RACE) || (line.starts_with(' ') && !kernels_own()))
    }

    /// The report, from its first line on, when there was one.
    pub fn found(&self) -> Option<&[String]> {
        (!self.report.is_empty()).then_some(&self.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_race_is_one_that_is_ours() {
        let mut watch = Watch::default();
        let mut say = |line: &str| {
            watch.record(&format!("4,1,1,-;{line}\n"));
            watch.found().map(<[_]>::len)
        };
        for line in [
            "==================================================================",
            "BUG: KCSAN: data-race in f / g",
            "read to 0x1 of 4 bytes by task 1 on cpu 0:",
            " f+0x1/0x2",
            " _printk+0x1/0x2",
            "sysgenid: said meanwhile, on another processor",
            " g+0x1/0x2 [sysgenid]",
            "",
            "read to 0x1 of 4 bytes by task 2 on cpu 1:",
            " h+0x1/0x2",
            "==================================================================",
            "BUG: KCSAN: data-race in capable / kthread_is_per_cpu",
            "read to 0xffff8880022eabac of 4 bytes by interrupt on cpu 0:",
            " kthread_is_per_cpu+0x1a/0x70",
            " asm_sysvec_apic_timer_interrupt+0x1a/0x20",
            " came_upon_it+0x1/0x2 [sysgenid]",
            "",
            "write to 0xffff8880022eabac of 4 bytes by task 2 on cpu 1:",
            " capable+0x1/0x2",
            " trigger+0x1/0x2 [sysgenid]",
            "==================================================================",
            "sysgenid: this is not a part of it",
            "BUG: KCSAN: data-race in f / g",
        ] {
            assert_eq!(say(line), None, "{line}");
        }
        assert_eq!(say(" f+0x1/0x2 [sysgenid]"), Some(2));
        assert_eq!(say(" g+0x1/0x2"), Some(3));
        let mut watch = Watch::default();
        watch.record("4,1,1,-;BUG: KCSAN: data-race in f [sysgenid] / g\n");
        assert_eq!(watch.found().map(<[_]>::len), Some(1));
    }

    fn found(line: &str) -> bool {
        let mut watch = Watch::default();
        watch.record(&format!("4,100,200,-;{line}\n SUBSYSTEM=misc\n"));
        watch.found().is_some()
    }

    #[test]
    fn reports_are_found() {
        for line in [
            "WARNING: CPU: 0 PID: 1 at kernel/x.c:1 f+0x1/0x2",
            "WARNING: kernel/x.c:1 at f+0x1/0x2, CPU#0: init/1",
            "BUG: KASAN: slab-use-after-free in f+0x1/0x2",
            "BUG: unable to handle page fault for address: 0",
            "WARNING: possible circular locking dependency detected",
            "kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
            "UBSAN: array-index-out-of-bounds in x.c:1:1",
            "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [cat:7]",
            "INFO: task cat:7 blocked for more than 120 seconds.",
            "BUG kmalloc-64 (Not tainted): Redzone overwritten",
            "BUG: KCSAN: data-race in f [sysgenid] / g",
            "BUG: sleeping function called from invalid context at x.c:1",
            "WARNING: bad unlock balance detected!",
            "WARNING: suspicious RCU usage",
            "[ BUG: Invalid wait context ]",
            "INFO: trying to register non-static key.",
            "ODEBUG: free active (active state 0) object: 0 object type: timer_list hint: f",
            "list_del corruption. prev->next should be 1, but was 2",
            "rust_kernel: panicked at x.rs:1:1:",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
            "Oops: general protection fault, 0000 [#1] SMP",
            "sysfs: cannot create duplicate filename '/x'",
            "kobject (1): tried to init an initialized object, something is seriously wrong.",
        ] {
            assert!(found(line), "{line}");
        }
    }

    #[test]
    fn ordinary_lines_are_not_reports() {
        for line in [
            "sysgenid: loading out-of-tree module taints kernel.",
            "Warning: unable to open an initial console.",
            "workingset: timestamp_bits=46 max_order=16 bucket_order=0",
            "Spectre V2 : WARNING: Unprivileged eBPF is enabled",
            "x86/debug: no BUG: here",
            "INFO: lockdep is turned off.",
            "kmemleak: Kernel memory leak detector initialized",
            "DEBUG: nothing",
        ] {
            assert!(!found(line), "{line}");
        }
    }

    #[test]
    fn the_console_is_read_without_its_times() {
        let mut watch = Watch::default();
        watch.console("[    1.000000] fine\n[    2.000000] Kernel panic - not syncing: x\n");
        assert_eq!(watch.found().map(<[_]>::len), Some(1));
    }

    #[test]
    fn a_leak_is_a_report_and_none_is_not() {
        let mut watch = Watch::default();
        watch.leaks("");
        assert!(watch.found().is_none());
        watch.leaks("unreferenced object 0x1 (size 32):\n  backtrace\n");
        assert_eq!(watch.found().map(<[_]>::len), Some(2));
    }

    #[test]
    fn what_follows_a_report_is_kept_with_it() {
        let mut watch = Watch::default();
        watch.record("4,1,1,-;WARNING: x");
        watch.record("4,2,2,-;Call Trace:");
        assert_eq!(watch.found().map(<[_]>::len), Some(2));
    }
}
