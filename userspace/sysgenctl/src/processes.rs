// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl doctor` of processes: which have libcrypto, and which of these do not notice clones.

use std::fmt;
use std::fmt::Display;
use std::io;
use std::io::Write;

use anstyle::Style;
use serde::Serialize;
use tabwriter::TabWriter;

use crate::cli::DoctorArguments;
use crate::copies::Copy;
use crate::doctor::Verdict;
use crate::evidence;
use crate::evidence::Investigator;
use crate::exit::Failure;
use crate::output::Output;
use crate::output::count;
use crate::output::plain;
use crate::process::Process;
use crate::why::Evidence;
use crate::why::Protection;
use crate::why::Reason;
use crate::why::System;

/// What is to be said of a process.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    pid: u32,
    /// What its program calls itself.
    name: String,
    unit: Option<String>,
    verdict: Verdict,
    found: String,
    /// The copies of libcrypto that it has.
    libraries: Vec<Copy>,
    reasons: Vec<Reason>,
}

/// What there is to say of all that were looked at.
#[derive(Debug, Serialize)]
struct Report {
    /// None has libcrypto and no protection, and all could be looked at.
    ready: bool,
    processes: Vec<Row>,
    /// How many may not be looked at.
    unreadable_processes: usize,
}

/// Looks at those that the arguments name, and fails if one has no protection.
pub fn run(arguments: &DoctorArguments, output: Output) -> Result<(), Failure> {
    let mut investigator = Investigator::new();
    let mut rows = Vec::new();
    let mut unreadable = 0;
    for process in chosen(arguments)? {
        match investigator.evidence(&process) {
            Ok(evidence) if evidence.copies.is_empty() && arguments.all => {}
            Ok(evidence) => rows.push(Row::new(&process, evidence, &investigator.system)),
            // It has ended while we looked.
            Err(_) if !process.exists() => {}
            Err(_) => unreadable += 1,
        }
    }
    let report = Report::new(rows, unreadable);
    output.show(&report)?;
    report.result()
}

fn chosen(arguments: &DoctorArguments) -> Result<Vec<Process>, Failure> {
    let chosen = if let Some(pid) = arguments.pid {
        let process = Process::new(pid);
        if !process.exists() {
            return Err(Failure::Refused(format!("there is no process {pid}")));
        }
        Ok(vec![process])
    } else if let Some(unit) = &arguments.unit {
        evidence::of_unit(unit)
    } else {
        Process::all()
    };
    let chosen = chosen.map_err(Failure::io("read /proc"))?;
    match &arguments.unit {
        Some(unit) if chosen.is_empty() => Err(Failure::Refused(format!(
            "systemd knows no process of a unit {unit}"
        ))),
        _ => Ok(chosen),
    }
}

impl Row {
    fn new(process: &Process, evidence: Evidence, system: &System) -> Self {
        let (verdict, found, reasons) = if evidence.copies.is_empty() {
            (Verdict::Ok, "no libcrypto that can be seen", Vec::new())
        } else {
            match evidence.protection(system) {
                Protection::Whole => (Verdict::Ok, "protected by the provider", Vec::new()),
                Protection::Partial(reasons) => {
                    (Verdict::Remark, "looks at the generation", reasons)
                }
                Protection::NotYet => (
                    Verdict::Remark,
                    "has libcrypto and nothing in the way of the provider, which it has not loaded: \
                     either it has not used OpenSSL yet, or it reads no configuration",
                    Vec::new(),
                ),
                Protection::None(reasons) => {
                    (Verdict::Fault, "has libcrypto and no protection", reasons)
                }
            }
        };
        Self {
            pid: process.pid,
            name: process.name(),
            unit: process.unit(),
            verdict,
            found: found.into(),
            libraries: evidence.copies,
            reasons,
        }
    }
}

impl Report {
    fn new(processes: Vec<Row>, unreadable_processes: usize) -> Self {
        let is_fault = |row: &Row| row.verdict == Verdict::Fault;
        Self {
            ready: unreadable_processes == 0 && !processes.iter().any(is_fault),
            processes,
            unreadable_processes,
        }
    }

    fn faults(&self) -> usize {
        let faults = self
            .processes
            .iter()
            .filter(|row| row.verdict == Verdict::Fault);
        faults.count()
    }

    /// A failure if one has no protection, or may have none.
    fn result(&self) -> Result<(), Failure> {
        match (self.faults(), self.unreadable_processes) {
            (0, 0) => Ok(()),
            (0, unreadable) => {
                let what = format!("look into {}", count(unreadable, "process", "processes"));
                Err(Failure::io(what)(io::ErrorKind::PermissionDenied.into()))
            }
            (faults, _) => Err(Failure::NotReady(format!(
                "{} libcrypto and no protection",
                count(faults, "process has", "processes have")
            ))),
        }
    }

    fn table(&self) -> io::Result<String> {
        let mut lines = TabWriter::new(Vec::new()).ansi(true);
        for row in &self.processes {
            let (style, word): (Style, &str) = row.verdict.shown();
            let (pid, name) = (row.pid, plain(&row.name));
            writeln!(
                lines,
                "{style}{word}{style:#}\t{pid}\t{name}\t{}",
                row.found
            )?;
            for Reason { found, advice } in &row.reasons {
                writeln!(lines, "\t\t\t{found}: {advice}")?;
            }
        }
        let lines = lines
            .into_inner()
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(String::from_utf8_lossy(&lines).into_owned())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table().map_err(|_| fmt::Error)?)?;
        let have = self
            .processes
            .iter()
            .filter(|row| !row.libraries.is_empty())
            .count();
        writeln!(
            f,
            "{} libcrypto, as far as can be seen",
            count(have, "process has", "processes have")
        )?;
        if self.unreadable_processes > 0 {
            writeln!(
                f,
                "not known of {}, which this user cannot look into: root can",
                count(self.unreadable_processes, "process", "processes")
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::copies::Kind;
    use crate::exit::Exit;

    use super::*;

    fn row(verdict: Verdict) -> Row {
        let reason = Reason {
            found: "it is so".into(),
            advice: "mend it".into(),
        };
        Row {
            pid: 7,
            name: "ngi\u{1b}nx".into(),
            unit: Some("nginx.service".into()),
            verdict,
            found: "has libcrypto".into(),
            libraries: vec![Copy {
                path: "/usr/lib/libcrypto.so.3".into(),
                kind: Kind::System,
            }],
            reasons: vec![reason],
        }
    }

    #[test]
    fn only_who_is_known_to_be_protected_is() {
        let exit = |rows, unreadable| {
            let report = Report::new(rows, unreadable);
            let result = report.result();
            assert_eq!(report.ready, result.is_ok());
            result.map_or_else(|failure| failure.exit(), |()| Exit::Success)
        };
        assert_eq!(exit(Vec::new(), 0), Exit::Success);
        assert_eq!(
            exit(vec![row(Verdict::Ok), row(Verdict::Remark)], 0),
            Exit::Success
        );
        assert_eq!(exit(vec![row(Verdict::Ok)], 1), Exit::Forbidden);
        assert_eq!(exit(vec![row(Verdict::Fault)], 1), Exit::NotReady);
    }

    #[test]
    fn people_see_a_process_and_its_reasons() {
        let report = Report::new(vec![row(Verdict::Fault), row(Verdict::Ok)], 2);
        let text = anstream::adapter::strip_str(&report.to_string()).to_string();
        let expected = "\
fault  7   ngi?nx  has libcrypto
                   it is so: mend it
ok     7   ngi?nx  has libcrypto
                   it is so: mend it
2 processes have libcrypto, as far as can be seen
not known of 2 processes, which this user cannot look into: root can
";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let json = serde_json::to_value(Report::new(vec![row(Verdict::Fault)], 0));
        let expected = serde_json::json!({
            "ready": false,
            "processes": [{
                "pid": 7,
                "name": "ngi\u{1b}nx",
                "unit": "nginx.service",
                "verdict": "fault",
                "found": "has libcrypto",
                "libraries": [{"path": "/usr/lib/libcrypto.so.3", "kind": "system"}],
                "reasons": [{"found": "it is so", "advice": "mend it"}],
            }],
            "unreadable_processes": 0,
        });
        assert_eq!(json.expect("it is plain data"), expected);
    }
}
