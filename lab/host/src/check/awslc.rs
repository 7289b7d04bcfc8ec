// SPDX-License-Identifier: MIT OR Apache-2.0

//! AWS-LC, as its crate ships it, in clones of a guest.

use anyhow::Result;
use anyhow::ensure;
use uuid::Uuid;

use super::Bench;
use super::guests::Said;
use super::guests::addition;
use super::guests::all_different;
use super::guests::clone_tests;
use super::guests::noted;
use super::guests::options;
use super::guests::resume_all;
use super::guests::setup;
use super::guests::some_equal;
use crate::products;
use crate::setup::GuestOptions;
use crate::tap::Test;

/// Those who draw from AWS-LC without the CPU's random number generator.
const WITHOUT_RDRAND: [&str; 2] = ["root", "nobody"];

/// The one who draws with it.
const WITH_RDRAND: [&str; 1] = ["rdrand"];

/// What each of them notes: 32 bytes, and what its TLS client and server drew for a connection.
const DRAWN: [&str; 5] = [
    "random",
    "client-random",
    "client-key",
    "server-random",
    "server-key",
];

/// What the test program notes of the generation, which is the second one when the guest is saved.
const SAVED: &str = "2";
const CHANGED: &str = "3";
const NO_DEVICE: &str = "0";

/// The clones of a guest in which the test program runs.
fn clones(
    bench: &Bench,
    no_module: bool,
    arguments: &[&str],
    ids: &[Option<Uuid>],
) -> Result<Vec<Said>> {
    let options = GuestOptions {
        no_module,
        // AWS-LC does not use the RDRAND of QEMU's emulated CPU unless that says it is Intel's.
        qemu_arg: ["-cpu", "max,la57=off,vendor=GenuineIntel"]
            .map(String::from)
            .into(),
        ..options(bench, 1)
    };
    let additions = [addition(products::awslc_selftest()?, "/awslc-test")];
    let command = [&["/awslc-test"], arguments].concat();
    resume_all(&setup(bench, &options, &additions, &command)?, ids)
}

/// The names under which they note what they draw.
fn names(who: &[&str], what: &[&str]) -> Vec<String> {
    who.iter()
        .flat_map(|who| what.iter().map(move |what| format!("{who}-{what}")))
        .collect()
}

/// A test that fails if any value is noted twice under the names of these.
fn drawn_differs(name: &str, clones: &[Said], who: &[&str]) -> Test {
    let names = names(who, &DRAWN);
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    all_different(name, clones, &names)
}

/// A test that fails unless each clone noted this generation, and so many reseeds for each.
fn seen(name: &str, clones: &[Said], generation: &str, reseeds: &str) -> Test {
    let result = || -> Result<()> {
        let of_each = names(
            &[WITHOUT_RDRAND.as_slice(), &WITH_RDRAND].concat(),
            &["reseeds"],
        );
        let reseeds = of_each.iter().map(|name| (name.as_str(), reseeds));
        for (name, expected) in reseeds.chain([("generation", generation)]) {
            for clone in clones {
                let noted = noted(&clone.output, name);
                ensure!(
                    noted == [expected],
                    "{name} is {noted:?}, and not {expected}"
                );
            }
        }
        Ok(())
    };
    Test::from_result(name, result())
}

/// AWS-LC heeds the generation: it reseeds once for each change, and clones draw different bytes. A
/// machine that is resumed with the ID that it had sees nothing.
///
/// Before the change clones draw the same bytes, which shows that the comparison can fail, and what
/// the generation alone cannot do.
pub fn with_module(bench: &Bench) -> Result<Vec<Test>> {
    let new = || Some(Uuid::new_v4());
    let mut clones = clones(bench, false, &[], &[new(), new(), new(), None])?;
    let same = clones.split_off(3);
    let mut tests = clone_tests("AWS-LC", &clones);
    tests.push(seen(
        "AWS-LC: each clone reseeds once",
        &clones,
        CHANGED,
        "1",
    ));
    tests.push(drawn_differs(
        "AWS-LC",
        &clones,
        &[WITHOUT_RDRAND.as_slice(), &WITH_RDRAND].concat(),
    ));
    tests.push(Test::from_result(
        "AWS-LC, control: before the change clones draw the same",
        some_equal(&clones, "early"),
    ));
    tests.extend(clone_tests("AWS-LC, same ID", &same));
    tests.push(seen(
        "AWS-LC, same ID: nothing is reseeded",
        &same,
        SAVED,
        "0",
    ));
    Ok(tests)
}

/// Without the module nothing is reseeded, and clones draw the same bytes and make the same keys,
/// unless AWS-LC mixes in what the CPU has drawn. The kernel has been reseeded all the while.
pub fn control(bench: &Bench) -> Result<Vec<Test>> {
    let ids = [(); 3].map(|()| Some(Uuid::new_v4()));
    let clones = clones(bench, true, &["--without-module"], &ids)?;
    let mut tests = clone_tests("AWS-LC, no module", &clones);
    tests.push(seen(
        "AWS-LC, no module: nothing is reseeded",
        &clones,
        NO_DEVICE,
        "0",
    ));
    tests.push(all_different(
        "AWS-LC, no module, from the kernel",
        &clones,
        &["kernel"],
    ));
    for name in names(&WITHOUT_RDRAND, &DRAWN) {
        tests.push(Test::from_result(
            format!("AWS-LC, no module: clones have the same {name}"),
            some_equal(&clones, &name),
        ));
    }
    tests.push(drawn_differs(
        "AWS-LC, no module, with RDRAND",
        &clones,
        &WITH_RDRAND,
    ));
    Ok(tests)
}
