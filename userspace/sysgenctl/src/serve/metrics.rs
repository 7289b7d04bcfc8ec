// SPDX-License-Identifier: MIT OR Apache-2.0

//! Numbers for Prometheus, in its text format.

use std::fmt::Display;
use std::fmt::Write;

use super::engine::Engine;
use super::refusal::Refusal;
use super::state::Phase;
use super::world::World;

/// All of them.
pub fn text<W: World>(engine: &Engine<W>) -> Result<String, Refusal> {
    let seen = engine.world().look()?;
    let watchers = engine.world().survey()?;
    let tally = engine.tally();
    let is_quiesced = engine.state().phase != Phase::Idle;
    let unconfirmed = watchers.watchers.iter().filter(|one| one.outdated).count();
    let mut text = String::new();
    let mut family = |name, kind, help, samples: Vec<(String, f64)>| {
        write_family(&mut text, name, kind, help, &samples);
    };
    let one = |value| vec![(String::new(), value)];
    let flag = |is_so| if is_so { 1.0 } else { 0.0 };

    family(
        "sysgenid_generation",
        "gauge",
        "The system generation.",
        one(f64::from(seen.point.generation)),
    );
    family(
        "sysgenid_changes_total",
        "counter",
        "Changes since the service was started.",
        labelled("source", engine.world().changes()),
    );
    let pending = seen.pending.map(|pending| (String::new(), flag(pending)));
    family(
        "sysgenid_change_pending",
        "gauge",
        "Whether a change is due; nothing where that is not known.",
        pending.into_iter().collect(),
    );
    family(
        "sysgenid_watchers_unconfirmed",
        "gauge",
        "Watchers that can be seen and are outdated, tracked or not.",
        one(number(unconfirmed)),
    );
    family(
        "sysgenid_watchers_tracked",
        "gauge",
        "Tracked watchers.",
        one(number(watchers.tracked_watchers)),
    );
    family(
        "sysgenid_watchers_outdated",
        "gauge",
        "Tracked watchers that are outdated.",
        one(number(watchers.outdated_watchers)),
    );
    family(
        "sysgenid_quiesced",
        "gauge",
        "Whether the machine is quiesced, or not brought back yet.",
        one(flag(is_quiesced)),
    );
    family(
        "sysgenid_step_seconds",
        "gauge",
        "How long each step of a resume took the last time.",
        labelled("step", tally.seconds),
    );
    family(
        "sysgenid_hooks_failed_total",
        "counter",
        "Stages of hooks that have failed since the service was started.",
        one(number(tally.hooks_failed)),
    );
    family(
        "sysgenid_resumes_total",
        "counter",
        "Resumes since the service was started, by what came of them.",
        labelled("outcome", tally.resumes),
    );
    Ok(text)
}

/// What is counted is far below what a float tells apart.
fn number(number: impl Display) -> f64 {
    number.to_string().parse().unwrap_or_default()
}

fn labelled<N: Display>(
    label: &str,
    values: impl IntoIterator<Item = (String, N)>,
) -> Vec<(String, f64)> {
    let values = values.into_iter();
    values
        .map(|(name, value)| {
            let name = name.replace('\\', r"\\").replace('"', "\\\"");
            let name = name.replace('\n', r"\n");
            (format!("{{{label}=\"{name}\"}}"), number(value))
        })
        .collect()
}

fn write_family(text: &mut String, name: &str, kind: &str, help: &str, samples: &[(String, f64)]) {
    // Nothing goes wrong when a string is written to.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_as_prometheus_wants_it() {
        let mut text = String::new();
        let samples = labelled("source", [("a\"\\\n".to_owned(), 3_u64)]);
        write_family(&mut text, "x_total", "counter", "What.", &samples);
        assert_eq!(
            text,
            "# HELP x_total What.\n# TYPE x_total counter\nx_total{source=\"a\\\"\\\\\\n\"} 3\n"
        );
    }
}
