// SPDX-License-Identifier: MIT OR Apache-2.0

//! The crate on the real device. This wants a machine that has it, and root; each test changes the
//! generation, so they run one at a time (`--test-threads 1`).

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use sysgenid::Cached;
use sysgenid::Error;
use sysgenid::Freshness;
use sysgenid::Generation;
use sysgenid::IdPage;
use sysgenid::Options;
use sysgenid::Overseer;
use sysgenid::SysGenId;
use sysgenid::Watcher;

/// It makes a failure of a hang, and asserts nothing about speed.
const LIMIT: Duration = Duration::from_secs(20);

/// Short enough to wait for in vain.
const SHORT: Duration = Duration::from_millis(50);

type Result<T> = std::result::Result<T, Error>;

#[test]
fn both_pages_are_mapped_for_root() -> Result<()> {
    let sysgenid = SysGenId::open()?;
    assert!(
        matches!(sysgenid.id_page(), IdPage::Mapped),
        "{:?}",
        sysgenid.id_page()
    );
    let read = std::fs::File::open(sysgenid::ID_NODE).and_then(|mut node| {
        let mut id = [0; 16];
        std::io::Read::read_exact(&mut node, &mut id)?;
        Ok(id)
    });
    let id = sysgenid.look().id().expect("it is mapped");
    assert_eq!(Some(*id.as_bytes()), read.ok());
    Ok(())
}

#[test]
fn a_trigger_is_seen_at_the_next_look() -> Result<()> {
    let (sysgenid, overseer) = (SysGenId::open()?, Overseer::open()?);
    let seen = sysgenid.look();
    let new = overseer.trigger(0)?;
    assert_ne!(sysgenid.look(), seen);
    let fresh = sysgenid.settle();
    assert_eq!(fresh.freshness(), Freshness::Reseeded);
    assert_eq!(fresh.seen().generation(), new);
    assert_eq!(fresh.seen().epoch(), seen.epoch() + 1);
    assert_eq!(fresh.seen().id(), seen.id());
    Ok(())
}

#[test]
fn a_cached_value_is_built_once_for_each_change() -> Result<()> {
    let overseer = Overseer::open()?;
    let token = Cached::new(SysGenId::open()?, |fresh| {
        let mut token = [0; 16];
        fresh.fill(&mut token)?;
        Ok(token)
    });
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let first = token.with(|token| *token)?;
        assert_eq!(token.with(|token| *token)?, first);
        tokens.push(first);
        overseer.trigger(0)?;
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 3);
    Ok(())
}

#[test]
fn a_guard_notices_a_trigger() -> Result<()> {
    let guard = SysGenId::open()?.guard();
    guard.check()?;
    Overseer::open()?.trigger(0)?;
    assert!(matches!(guard.check(), Err(Error::Changed)));
    Ok(())
}

#[test]
fn a_watcher_sleeps_until_the_change() -> Result<()> {
    let (watcher, overseer) = (Watcher::open()?, Overseer::open()?);
    assert_eq!(watcher.wait_timeout(SHORT)?, None);
    let new = thread::scope(|scope| -> Result<_> {
        let waiting = scope.spawn(|| watcher.wait());
        thread::sleep(SHORT);
        assert!(!waiting.is_finished());
        let new = overseer.trigger(0)?;
        assert_eq!(waiting.join().expect("no panic")?, new);
        Ok(new)
    })?;
    assert_eq!(watcher.wait_timeout(Duration::MAX)?, Some(new));
    watcher.ack(new)?;
    assert_eq!(watcher.outdated()?, None);
    Ok(())
}

#[test]
fn a_late_ack_is_refused() -> Result<()> {
    let (watcher, overseer) = (Watcher::open()?, Overseer::open()?);
    let old = overseer.trigger(0)?;
    let new = overseer.trigger(0)?;
    let error = watcher.ack(old).expect_err("there is a newer one");
    assert!(matches!(error, Error::Superseded { acked } if acked == old));
    assert_eq!(watcher.outdated()?, Some(new));
    Ok(())
}

#[test]
fn a_least_generation_is_reached() -> Result<()> {
    let overseer = Overseer::open()?;
    let old = overseer.generation().get();
    assert_eq!(overseer.trigger(old + 100)?, Generation::new(old + 100));
    assert_eq!(overseer.trigger(1)?, Generation::new(old + 101));
    assert_eq!(overseer.status()?.source(), "ioctl");
    Ok(())
}

#[test]
fn an_overseer_waits_for_tracked_watchers_only() -> Result<()> {
    let overseer = Overseer::open()?;
    let (tracked, _untracked) = (Watcher::open()?, Watcher::open()?);
    tracked.set_tracked(true)?;
    // The overseer's own watcher is outdated as well, and that does not matter.
    let new = overseer.trigger(0)?;
    let error = overseer
        .wait_watchers(Some(SHORT))
        .expect_err("one has not acked");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| overseer.wait_watchers(None));
        thread::sleep(SHORT);
        assert!(!waiting.is_finished());
        tracked.ack(new)?;
        waiting.join().expect("no panic")
    })?;
    let status = overseer.status()?;
    assert_eq!((status.watchers(), status.outdated_watchers()), (1, 0));
    overseer.trigger(0)?;
    drop(tracked);
    overseer.wait_watchers(Some(LIMIT))
}

#[test]
fn a_change_during_the_wait_is_waited_for() -> Result<()> {
    let overseer = Overseer::open()?;
    let watcher = Watcher::open()?;
    watcher.set_tracked(true)?;
    let first = overseer.trigger(0)?;
    thread::scope(|scope| {
        let waiting = scope.spawn(|| overseer.wait_watchers(Some(LIMIT)));
        thread::sleep(SHORT);
        // It makes the waiting overseer itself outdated.
        let second = Overseer::open()?.trigger(0)?;
        assert!(matches!(watcher.ack(first), Err(Error::Superseded { .. })));
        thread::sleep(SHORT);
        assert!(!waiting.is_finished());
        watcher.ack(second)?;
        waiting.join().expect("no panic")
    })
}

#[test]
fn the_survey_lists_who_holds_up_the_overseer() -> Result<()> {
    let overseer = Overseer::open()?;
    let watchers = [Watcher::open()?, Watcher::open()?];
    watchers[0].set_tracked(true)?;
    let new = overseer.trigger(0)?;
    watchers[1].ack(new)?;
    let survey = overseer.survey()?;
    assert_eq!(survey.unreadable(), 0, "root may look everywhere");
    let mine: Vec<_> = survey
        .entries()
        .iter()
        .filter(|entry| entry.pid() == std::process::id())
        .collect();
    assert_eq!(mine.len(), 2, "{survey:?}");
    assert!(mine[0].command().contains("device"), "{survey:?}");
    let outdated: Vec<_> = survey.outdated().collect();
    assert_eq!(outdated.len(), 1);
    assert_eq!(outdated[0].status().generation(), new);
    assert_ne!(outdated[0].status().acked(), new);
    Ok(())
}

#[test]
fn what_is_answered_is_settled_without_a_pause() -> Result<()> {
    // It would not be within this limit if it slept once.
    let options = Options::new().limit(Duration::ZERO);
    let overseer = Overseer::open()?;
    for sysgenid in [options.clone().open()?, options.hasten().open()?] {
        assert_eq!(sysgenid.settle().freshness(), Freshness::Reseeded);
        for _ in 0..3 {
            let new = overseer.trigger(0)?;
            let fresh = sysgenid.settle();
            assert_eq!(fresh.freshness(), Freshness::Reseeded);
            assert_eq!(fresh.seen().generation(), new);
        }
    }
    Ok(())
}

#[test]
fn without_the_id_the_flag_of_the_generation_counts() -> Result<()> {
    let sysgenid = Options::new().without_id().open()?;
    let fresh = sysgenid.settle();
    assert_eq!(fresh.seen().id(), None);
    assert_eq!(fresh.freshness(), Freshness::Reseeded);
    Ok(())
}

#[test]
fn nothing_is_due_where_nobody_was_cloned() -> Result<()> {
    let overseer = Overseer::open()?;
    overseer.settle(Some(Duration::ZERO))?;
    overseer.settle(None)?;
    assert_eq!(overseer.status()?.pending(), Some(false));
    Ok(())
}

#[test]
fn a_missing_id_page_is_no_error() -> Result<()> {
    let sysgenid = Options::new().id_node("/no/such/node").open()?;
    assert!(matches!(sysgenid.id_page(), IdPage::Absent));
    let sysgenid = Options::new().id_node("/dev/null").open()?;
    assert!(matches!(
        sysgenid.id_page(),
        IdPage::Failed(Error::NotTheDevice { .. })
    ));
    assert_eq!(sysgenid.look().id(), None);
    Ok(())
}

/// The two tests here are for other machines: see device.test.toml.
#[test]
#[ignore = "for a machine where the hypervisor's page cannot be mapped"]
fn elsewhere_a_page_that_cannot_be_mapped_is_read() -> Result<()> {
    let sysgenid = SysGenId::open()?;
    let page = sysgenid.id_page();
    assert!(matches!(page, IdPage::Read), "{page:?}");
    let read = std::fs::read(sysgenid::ID_NODE).expect("root may read it");
    let seen = sysgenid.look();
    assert_eq!(seen.id().map(|id| id.as_bytes().to_vec()), Some(read));
    let fresh = sysgenid.settle();
    assert_eq!(fresh.freshness(), Freshness::Reseeded);
    assert_eq!(fresh.seen(), seen);
    let new = Overseer::open()?.trigger(0)?;
    assert_ne!(sysgenid.look(), seen);
    let fresh = sysgenid.settle();
    assert_eq!(fresh.freshness(), Freshness::Reseeded);
    assert_eq!(fresh.seen().generation(), new);
    Ok(())
}

#[test]
#[ignore = "for a machine without an ID"]
fn elsewhere_a_kernel_without_an_id_does_not_vouch_for_its_bytes() -> Result<()> {
    let sysgenid = SysGenId::open()?;
    assert!(matches!(sysgenid.id_page(), IdPage::Absent));
    assert_eq!(Overseer::open()?.status()?.pending(), None);
    for _ in 0..2 {
        let fresh = sysgenid.settle();
        assert_eq!(fresh.freshness(), Freshness::NotReseeded);
        assert_eq!(fresh.seen(), sysgenid.look());
        let mut bytes = [0; 16];
        fresh.fill(&mut bytes)?;
        assert_ne!(bytes, [0; 16]);
        Overseer::open()?.trigger(0)?;
    }
    Ok(())
}

/// Runs one of the tests below as nobody, and without any capability.
fn as_nobody(test: &str) {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .args(["--exact", "--ignored", "--test-threads", "1", test])
        .uid(65534)
        .gid(65534)
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{test}: {said}");
    assert!(said.contains("1 passed"), "{test} was not run: {said}");
}

#[test]
fn an_ordinary_user_can_do_all_but_trigger() {
    as_nobody("nobody_can_do_all_but_trigger");
}

#[test]
#[ignore = "runs as nobody, from an_ordinary_user_can_do_all_but_trigger"]
fn nobody_can_do_all_but_trigger() -> Result<()> {
    let overseer = Overseer::open()?;
    let error = overseer.trigger(0).expect_err("no capability");
    assert!(matches!(error, Error::NotPrivileged), "{error}");
    let watcher = Watcher::open()?;
    watcher.set_tracked(true)?;
    watcher.ack(overseer.generation())?;
    overseer.wait_watchers(Some(LIMIT))?;
    assert_eq!(overseer.survey()?.unreadable(), programs_of_root());
    Ok(())
}

/// How many processes of root have a command line, which threads of the kernel have not.
fn programs_of_root() -> usize {
    let processes = std::fs::read_dir("/proc").expect("/proc is mounted");
    let of_root = processes.flatten().filter(|process| {
        // The links to the process itself are root's.
        let owner = std::fs::symlink_metadata(process.path())
            .map(|metadata| (metadata.is_dir(), metadata.uid()));
        let command = std::fs::read(process.path().join("cmdline"));
        matches!(owner, Ok((true, 0))) && command.is_ok_and(|command| !command.is_empty())
    });
    of_root.count()
}

#[test]
fn a_forbidden_id_page_is_told_from_a_missing_one() {
    let mode = |mode| {
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(sysgenid::ID_NODE, permissions).expect("we are root");
    };
    mode(0o400);
    as_nobody("nobody_may_not_open_the_id_page");
    mode(0o444);
    as_nobody("nobody_may_open_the_id_page");
    mode(0o400);
}

#[test]
#[ignore = "runs as nobody, from a_forbidden_id_page_is_told_from_a_missing_one"]
fn nobody_may_not_open_the_id_page() -> Result<()> {
    let sysgenid = SysGenId::open()?;
    let IdPage::Forbidden(error) = sysgenid.id_page() else {
        panic!("{:?}", sysgenid.id_page());
    };
    assert!(error.to_string().contains(sysgenid::ID_NODE), "{error}");
    Ok(())
}

#[test]
#[ignore = "runs as nobody, from a_forbidden_id_page_is_told_from_a_missing_one"]
fn nobody_may_open_the_id_page() -> Result<()> {
    assert!(matches!(SysGenId::open()?.id_page(), IdPage::Mapped));
    Ok(())
}

#[cfg(feature = "tokio")]
mod runtime {
    use super::*;

    #[tokio::test]
    async fn an_async_watcher_sleeps_until_each_change() -> Result<()> {
        let overseer = Overseer::open()?;
        let watcher = sysgenid::AsyncWatcher::new(Watcher::open()?)?;
        for _ in 0..3 {
            let wait = tokio::time::timeout(SHORT, watcher.wait());
            assert!(wait.await.is_err(), "nothing has changed");
            let change = async {
                tokio::time::sleep(SHORT).await;
                overseer.trigger(0)
            };
            let (seen, new) = tokio::join!(watcher.wait(), change);
            let new = new?;
            assert_eq!(seen?, new);
            // Until it is acknowledged.
            assert_eq!(watcher.wait().await?, new);
            watcher.get_ref().ack(new)?;
        }
        Ok(())
    }
}
