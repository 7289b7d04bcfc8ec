// SPDX-License-Identifier: MIT OR Apache-2.0

//! `sysgenctl status`

use std::fmt;
use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use sysgenid::IdPage;
use sysgenid::Overseer;
use sysgenid::SysGenId;
use tabwriter::TabWriter;

use crate::exit::Failure;
use crate::log::LastChange;
use crate::output::NOTABLE;
use crate::output::Output;
use crate::output::time;
use crate::table::Watchers;

/// What there is to know.
#[derive(Debug, Serialize)]
pub struct State {
    generation: u32,
    epoch: u64,
    source: String,
    /// Whether the kernel was reseeded with the hypervisor's present ID in it.
    reseeded: bool,
    /// When it changed last, if it ever did, and if that is known.
    changed_at: Option<String>,
    /// Why that is not known.
    changed_at_unknown: Option<String>,
    #[serde(skip)]
    last_change: LastChange,
    /// Whether a change is due; nothing where the driver cannot see the ID.
    pending: Option<bool>,
    vmgenid: Vmgenid,
    #[serde(flatten)]
    watchers: Watchers,
}

/// What there is of `/dev/vmgenid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Vmgenid {
    Readable,
    Absent,
    Forbidden,
    Failed,
}

impl From<&IdPage> for Vmgenid {
    fn from(page: &IdPage) -> Self {
        match page {
            IdPage::Mapped | IdPage::Read => Self::Readable,
            IdPage::Absent => Self::Absent,
            IdPage::Forbidden(_) => Self::Forbidden,
            _ => Self::Failed,
        }
    }
}

/// Shows it.
pub fn run(output: Output) -> Result<(), Failure> {
    output.show(&State::find(&Overseer::open()?)?)
}

impl State {
    /// What there is to know now.
    pub fn find(overseer: &Overseer) -> Result<Self, Failure> {
        let survey = overseer.survey()?;
        let status = overseer.status()?;
        let vmgenid = Vmgenid::from(SysGenId::open()?.id_page());
        let generation = status.generation().get();
        let last_change = LastChange::find(generation);
        Ok(Self {
            generation,
            epoch: status.epoch(),
            source: status.source().to_owned(),
            reseeded: status.reseeded(),
            changed_at: last_change.time().map(time),
            changed_at_unknown: match &last_change {
                LastChange::Unknown(reason) => Some(reason.clone()),
                LastChange::Never | LastChange::Ago(_) => None,
            },
            last_change,
            pending: status.pending(),
            vmgenid,
            watchers: Watchers::new(&status, &survey),
        })
    }

    fn changed(&self) -> String {
        let source = &self.source;
        match &self.last_change {
            LastChange::Never => "never, since the driver was loaded".into(),
            LastChange::Unknown(reason) => format!("by {source}, when is unknown: {reason}"),
            LastChange::Ago(ago) => format!(
                "by {source} {} ago ({})",
                humantime::format_duration(Duration::from_secs(ago.as_secs())),
                self.changed_at
                    .as_deref()
                    .unwrap_or("before the clock was set"),
            ),
        }
    }

    fn pending(&self) -> String {
        match self.pending {
            Some(false) => "nothing".into(),
            Some(true) => format!(
                "{NOTABLE}a change{NOTABLE:#}: the hypervisor has cloned this machine, and the kernel \
                 has yet to hear of it"
            ),
            None => "unknown: the driver cannot see an ID of the hypervisor's".into(),
        }
    }

    fn reseeded(&self) -> String {
        match (self.reseeded, self.pending) {
            (true, _) => "yes, with the hypervisor's ID, before anybody was told".into(),
            (false, None) => "not with an ID of the hypervisor's, since there is none".into(),
            (false, Some(_)) => format!(
                "{NOTABLE}no{NOTABLE:#}: even getrandom() may return what clones of this machine get"
            ),
        }
    }

    fn id(&self) -> String {
        let what = match self.vmgenid {
            Vmgenid::Readable => {
                return "readable: a clone is noticed before it does anything".into();
            }
            Vmgenid::Absent => "absent",
            Vmgenid::Forbidden => "not readable by this user",
            Vmgenid::Failed => "not usable",
        };
        format!(
            "{NOTABLE}{what}{NOTABLE:#}: only the generation is looked at, and a clone goes unnoticed \
             for some milliseconds"
        )
    }

    fn tracked(&self) -> String {
        let tracked = self.watchers.tracked_watchers;
        match self.watchers.outdated_watchers {
            0 => format!("{tracked}, none outdated"),
            outdated => format!("{tracked}, {NOTABLE}{outdated} outdated{NOTABLE:#}"),
        }
    }
}

impl Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aligned = || -> std::io::Result<String> {
            let mut lines = TabWriter::new(Vec::new()).ansi(true);
            writeln!(lines, "generation\t{}", self.generation)?;
            writeln!(lines, "epoch\t{}", self.epoch)?;
            writeln!(lines, "changed\t{}", self.changed())?;
            writeln!(lines, "reseeded\t{}", self.reseeded())?;
            writeln!(lines, "pending\t{}", self.pending())?;
            writeln!(lines, "/dev/vmgenid\t{}", self.id())?;
            writeln!(lines, "tracked\t{}", self.tracked())?;
            let lines = lines
                .into_inner()
                .map_err(|error| std::io::Error::other(error.to_string()))?;
            Ok(String::from_utf8_lossy(&lines).into_owned())
        };
        f.write_str(&aligned().map_err(|_| fmt::Error)?)?;
        let watchers = self.watchers.to_string();
        if !watchers.is_empty() {
            write!(f, "\n{watchers}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::made::watcher;
    use crate::table::made::watchers;

    fn state(last_change: LastChange, vmgenid: Vmgenid, pending: Option<bool>) -> State {
        State {
            generation: 7,
            epoch: 9,
            source: "vmfork".into(),
            reseeded: true,
            changed_at: Some("2026-11-25T10:20:30Z".into()),
            changed_at_unknown: None,
            last_change,
            pending,
            vmgenid,
            watchers: watchers(vec![watcher(71, true, true), watcher(72, true, false)], 0),
        }
    }

    fn shown(state: &State) -> String {
        anstream::adapter::strip_str(&state.to_string()).to_string()
    }

    #[test]
    fn people_see_all_of_it() {
        let ago = LastChange::Ago(Duration::from_millis(192_500));
        assert_eq!(
            shown(&state(ago, Vmgenid::Readable, Some(false))),
            "\
generation    7
epoch         9
changed       by vmfork 3m 12s ago (2026-11-25T10:20:30Z)
reseeded      yes, with the hypervisor's ID, before anybody was told
pending       nothing
/dev/vmgenid  readable: a clone is noticed before it does anything
tracked       2, 1 outdated

PID  FD  TRACKED  ACKED  OUTDATED  COMMAND
71   3   yes      7      yes       nginx: worker process
72   3   yes      7      no        nginx: worker process
"
        );
    }

    #[test]
    fn what_is_not_known_is_said() {
        let unknown = LastChange::Unknown("/dev/kmsg cannot be read".into());
        let text = shown(&state(unknown, Vmgenid::Absent, None));
        for line in [
            "changed       by vmfork, when is unknown: /dev/kmsg cannot be read\n",
            "pending       unknown: the driver cannot see an ID of the hypervisor's\n",
            "/dev/vmgenid  absent: only the generation is looked at, ",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let text = shown(&state(LastChange::Never, Vmgenid::Forbidden, Some(true)));
        for line in [
            "changed       never, since the driver was loaded\n",
            "pending       a change: ",
            "/dev/vmgenid  not readable by this user: only the generation is looked at, ",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }

    #[test]
    fn a_kernel_that_was_not_reseeded_is_notable_where_there_is_an_id() {
        let mut state = state(LastChange::Never, Vmgenid::Readable, Some(false));
        state.reseeded = false;
        let text = shown(&state);
        assert!(
            text.contains("reseeded      no: even getrandom()"),
            "{text}"
        );
        state.pending = None;
        let text = shown(&state);
        assert!(text.contains("reseeded      not with an ID"), "{text}");
    }

    #[test]
    fn the_json_is_what_the_manual_documents() {
        let mut state = state(LastChange::Never, Vmgenid::Forbidden, None);
        state.watchers.watchers.truncate(1);
        let json = serde_json::to_value(&state).expect("it is plain data");
        let expected = serde_json::json!({
            "generation": 7,
            "epoch": 9,
            "source": "vmfork",
            "reseeded": true,
            "changed_at": "2026-11-25T10:20:30Z",
            "changed_at_unknown": null,
            "pending": null,
            "vmgenid": "forbidden",
            "tracked_watchers": 2,
            "outdated_watchers": 1,
            "watchers": [{
                "pid": 71,
                "fd": 3,
                "tracked": true,
                "acked": 7,
                "outdated": true,
                "command": "nginx: worker process",
            }],
            "unseen_watchers": 0,
            "unreadable_processes": 0,
        });
        assert_eq!(json, expected);
    }
}
