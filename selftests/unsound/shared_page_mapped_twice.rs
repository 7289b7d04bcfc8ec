// SPDX-License-Identifier: GPL-2.0
//
// error[E0382]: use of moved value: `area`: value used here after move

//! A shared page that is mapped into an area twice: the area's file is not the device's any more the
//! second time.

use crate::abstractions::{
    shared_page::{
        Shared,
        SharedPage, //
    },
    vma::EmptyArea, //
};
use kernel::{
    fs::File,
    prelude::*,
    sync::Arc, //
};

fn map(page: &Arc<SharedPage<Shared<u32>>>, area: EmptyArea<'_>, file: &File) -> Result {
    let area = area.restrict_to_reading_one_page()?;

    page.map(area, file, c"once", ())?;

    #[cfg(not(sound))]
    page.map(area, file, c"twice", ())?;

    Ok(())
}
