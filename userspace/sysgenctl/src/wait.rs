// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl wait`

use std::fmt;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;
use sysgenid::Error;
use sysgenid::Overseer;

use crate::cgroup;
use crate::cli::WaitArguments;
use crate::deadline::Deadline;
use crate::exit::Failure;
use crate::followers::Followers;
use crate::followers::Unit;
use crate::output::Output;
use crate::output::plain;
use crate::supervised::Limits;
use crate::supervised::Supervisor;
use crate::table::Watchers;

/// For how long the kernel is waited for at once.
pub const SLICE: Duration = Duration::from_millis(200);

/// How long a program may take that answers at once where all is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of waiting for watchers.
#[derive(Debug, Serialize)]
pub struct Waited {
    /// Whether no tracked watcher is outdated.
    pub all_acked: bool,
    /// Those that are.
    #[serde(flatten)]
    pub watchers: Watchers,
}

/// What came of waiting for all that a change asks for.
#[derive(Debug, Serialize)]
pub struct AllWaited {
    /// The watchers.
    #[serde(flatten)]
    pub watchers: Waited,
    /// The units that follow a change, if they were waited for, and there are any.
    pub units: Option<Vec<Unit>>,
    /// In words.
    #[serde(skip)]
    said: String,
}

#[derive(Debug, Serialize)]
struct Answer {
    generation: u32,
    #[serde(flatten)]
    waited: AllWaited,
}

/// Waits, and says what came of it.
pub fn run(arguments: &WaitArguments, output: Output) -> Result<(), Failure> {
    let overseer = Overseer::open()?;
    let (waited, result) = AllWaited::of_all(&overseer, arguments.timeout, !arguments.no_units)?;
    let generation = overseer.generation().get();
    output.show(&Answer { generation, waited })?;
    result
}

impl AllWaited {
    /// Waits, until the deadline or something `is_over`.
    pub fn wait(
        overseer: &Overseer,
        whom: &Whom,
        limit: &Limit,
        with_units: bool,
        is_over: impl Fn() -> bool,
    ) -> Result<(Self, Ends), Failure> {
        let Limit { timeout, deadline } = limit;
        loop {
            let epoch = overseer.status()?.epoch();
            let watchers = Waited::wait_for(overseer, whom, deadline, &is_over)?;
            let mut said = watchers.to_string();
            let mut ends = Ends {
                in_time: watchers.result(*timeout),
                succeeded: Ok(()),
            };
            let mut units = None;
            if with_units && ends.in_time.is_ok() {
                let followers = Followers::wait(overseer, deadline, &is_over)?;
                said.push_str(&followers.to_string());
                ends.in_time = followers.in_time(*timeout);
                ends.succeeded = followers.succeeded();
                units = followers.units;
            }
            // Of a change that came while the units were waited for, watchers have to be as well.
            if ends.in_time.is_err() || overseer.status()?.epoch() == epoch {
                let waited = Self {
                    watchers,
                    units,
                    said,
                };
                return Ok((waited, ends));
            }
        }
    }

    /// The same for everybody, for as long as that. Says with what it is to end.
    pub fn of_all(
        overseer: &Overseer,
        timeout: Option<Duration>,
        with_units: bool,
    ) -> Result<(Self, Result<(), Failure>), Failure> {
        let limit = Limit {
            timeout,
            deadline: Deadline::after(timeout),
        };
        let (waited, ends) = Self::wait(overseer, &Whom::All, &limit, with_units, || false)?;
        Ok((waited, ends.in_time.and(ends.succeeded)))
    }
}

/// How long it may take.
#[derive(Debug)]
pub struct Limit {
    /// As it was asked for, to say it.
    pub timeout: Option<Duration>,
    /// Until when.
    pub deadline: Deadline,
}

/// With what it ends.
#[derive(Debug)]
pub struct Ends {
    /// A failure if the time was over before all had acknowledged, and ended.
    pub in_time: Result<(), Failure>,
    /// A failure if a unit has failed, or none began.
    pub succeeded: Result<(), Failure>,
}

/// For whose watchers is waited.
#[derive(Clone, Debug)]
pub enum Whom {
    /// Anybody's.
    All,
    /// Those of users with these numbers.
    Users(Vec<u32>),
    /// Those of them that are in such a place.
    In(Box<Whom>, Place),
}

/// Where processes are, by their control groups.
#[derive(Clone, Debug)]
pub enum Place {
    /// In this one, or below it.
    Inside(PathBuf),
    /// In none of these.
    Outside(Vec<PathBuf>),
}

impl Place {
    fn has(&self, pid: u32) -> bool {
        // One that has ended is nowhere, and waited for until it has ended in the table, too.
        let cgroup = cgroup::of(pid).unwrap_or_default();
        match self {
            Self::Inside(place) => cgroup.starts_with(place),
            Self::Outside(places) => !places.iter().any(|place| cgroup.starts_with(place)),
        }
    }
}

impl Whom {
    /// Root and the named users, or everybody.
    pub fn of(privileged_only: bool, names: &[String]) -> Result<Self, Failure> {
        if !privileged_only {
            return Ok(Self::All);
        }
        let mut users = vec![0];
        for name in names {
            users.push(number_of(name)?);
        }
        Ok(Self::Users(users))
    }

    /// Whether a process is theirs, and of nobody else. Who runs a program that gains rights can hand it
    /// a watcher, and gains none by that.
    fn has(&self, pid: u32) -> bool {
        match self {
            Self::All => true,
            Self::Users(users) => fs::read_to_string(format!("/proc/{pid}/status"))
                .ok()
                .and_then(|status| owners(&status))
                .is_some_and(|owners| owners.iter().all(|owner| users.contains(owner))),
            Self::In(whom, place) => whom.has(pid) && place.has(pid),
        }
    }

    /// Whether a tracked watcher counts that is in no process that can be seen.
    fn has_unseen(&self) -> bool {
        match self {
            Self::All => true,
            Self::Users(_) => false,
            Self::In(whom, _) => whom.has_unseen(),
        }
    }
}

/// The number of a user, by whatever the system asks for it, which may be elsewhere, and may not answer.
fn number_of(name: &str) -> Result<u32, Failure> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let ran = Supervisor::new(Limits::each(PATIENCE), None)
        .run(Command::new("id").args(["-u", "--", name]));
    let number = ran.said.trim().parse().ok().filter(|_| ran.end.succeeded());
    number.ok_or_else(|| {
        let (end, said) = (&ran.end, plain(ran.said.trim()));
        Failure::Refused(format!("there is no user {name} (id: {end}: {said})"))
    })
}

/// The real, the effective and the saved user of a process, by its status in /proc.
fn owners(status: &str) -> Option<Vec<u32>> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let numbers: Vec<u32> = line
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    (numbers.len() == 4).then(|| numbers[..3].to_vec())
}

impl Waited {
    /// Waits until no tracked watcher of theirs is outdated, until the deadline or something `is_over`; both
    /// are looked at after each slice of time.
    pub fn wait_for(
        overseer: &Overseer,
        whom: &Whom,
        deadline: &Deadline,
        is_over: impl Fn() -> bool,
    ) -> Result<Self, Failure> {
        loop {
            if is_in_time(overseer.wait_watchers(Some(deadline.slice(SLICE))))? {
                return Self::now(overseer, whom, true);
            }
            let is_over = deadline.is_over() || is_over();
            if is_over || !matches!(whom, Whom::All) {
                let waited = Self::now(overseer, whom, false)?;
                if waited.all_acked || is_over {
                    return Ok(waited);
                }
            }
        }
    }

    /// What there is. If all have acknowledged, nobody has to be looked for.
    fn now(overseer: &Overseer, whom: &Whom, all_acked: bool) -> Result<Self, Failure> {
        let status = overseer.status()?;
        if all_acked || status.outdated_watchers() == 0 {
            return Ok(Self {
                all_acked: true,
                watchers: Watchers::none(&status),
            });
        }
        let survey = overseer.survey()?;
        let mut watchers = Watchers::new(&status, &survey).waited_for();
        if let Whom::In(..) = whom {
            watchers.watchers.retain(|watcher| whom.has(watcher.pid));
        }
        let all_acked = match whom {
            Whom::All => false,
            // Theirs could be among what cannot be looked at.
            Whom::Users(_) | Whom::In(..) => {
                watchers.unreadable_processes == 0
                    && !(whom.has_unseen() && watchers.unseen_watchers > 0)
                    && !watchers
                        .watchers
                        .iter()
                        .any(|watcher| whom.has(watcher.pid))
            }
        };
        Ok(Self {
            all_acked,
            watchers,
        })
    }

    /// A failure if there still was one when the time was over.
    pub fn result(&self, timeout: Option<Duration>) -> Result<(), Failure> {
        if self.all_acked {
            return Ok(());
        }
        Err(Failure::TimedOut(format!(
            "after {} not all tracked watchers have acknowledged: {} of {} are outdated",
            humantime::format_duration(timeout.unwrap_or_default()),
            self.watchers.outdated_watchers,
            self.watchers.tracked_watchers,
        )))
    }
}

impl Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Watchers {
            tracked_watchers: tracked,
            outdated_watchers: outdated,
            ..
        } = self.watchers;
        if self.all_acked && outdated == 0 {
            writeln!(f, "no tracked watcher is outdated, of {tracked}")
        } else if self.all_acked {
            writeln!(
                f,
                "no tracked watcher is outdated that is waited for; of others, {outdated} are"
            )
        } else {
            self.watchers.fmt(f)
        }
    }
}

impl Display for AllWaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.waited.fmt(f)
    }
}

fn is_in_time(waited: sysgenid::Result<()>) -> Result<bool, Failure> {
    match waited {
        Ok(()) => Ok(true),
        Err(Error::TimedOut { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::exit::Exit;
    use crate::followers::Result::Done;
    use crate::followers::tests::unit;
    use crate::table::made::watcher;
    use crate::table::made::watchers;

    pub fn all_waited() -> AllWaited {
        AllWaited {
            watchers: waited(true),
            units: Some(vec![unit("a.service", Done, None)]),
            said: "so".into(),
        }
    }

    pub fn waited(all_acked: bool) -> Waited {
        let left = if all_acked {
            Vec::new()
        } else {
            vec![watcher(71, true, true)]
        };
        Waited {
            all_acked,
            watchers: watchers(left, 0),
        }
    }

    #[test]
    fn the_time_being_over_names_those_that_are_left() {
        let waited = waited(false);
        let failure = waited
            .result(Some(Duration::from_secs(30)))
            .expect_err("one is outdated");
        assert_eq!(failure.exit(), Exit::TimedOut);
        assert_eq!(
            failure.to_string(),
            "after 30s not all tracked watchers have acknowledged: 1 of 2 are outdated"
        );
        assert!(waited.to_string().contains("nginx: worker process"));
    }

    #[test]
    fn a_process_is_of_all_its_users() {
        let status = |uids: &str| format!("Name:\tx\nUid:\t{uids}\nGid:\t0\t0\t0\t0\n");
        assert_eq!(owners(&status("0\t1\t2\t3")), Some(vec![0, 1, 2]));
        assert_eq!(owners("Name:\tx\n"), None);
        assert_eq!(owners(&status("0\t1")), None);
        let me = std::process::id();
        assert!(Whom::All.has(me));
        assert!(!Whom::Users(vec![4_000_000_000]).has(me));
        let own = rustix::process::getuid().as_raw();
        assert!(Whom::Users(vec![4_000_000_000, own]).has(me));
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        assert!(waited(true).result(None).is_ok());
        let answer = Answer {
            generation: 7,
            waited: all_waited(),
        };
        assert_eq!(answer.to_string(), "so");
        let json = serde_json::to_value(answer);
        let expected = serde_json::json!({
            "generation": 7,
            "all_acked": true,
            "tracked_watchers": 2,
            "outdated_watchers": 1,
            "watchers": [],
            "unseen_watchers": 0,
            "unreadable_processes": 0,
            "units": [{ "name": "a.service", "result": "done", "reason": null }],
        });
        assert_eq!(json.expect("it is plain data"), expected);
    }
}
