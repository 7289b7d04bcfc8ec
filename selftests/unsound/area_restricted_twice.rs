// SPDX-License-Identifier: GPL-2.0
//
// error[E0382]: use of moved value: `area`: value used here after move

//! Two pages that are mapped into one area, each of which counts on being the only one.

use crate::abstractions::{
    memremap::ForeignPage,
    vma::EmptyArea, //
};
use kernel::prelude::*;

fn map(page: &ForeignPage, area: EmptyArea<'_>) -> Result {
    page.map(area.restrict_to_reading_one_page()?)?;

    #[cfg(not(sound))]
    page.map(area.restrict_to_reading_one_page()?)?;

    Ok(())
}
