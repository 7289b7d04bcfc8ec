// SPDX-License-Identifier: GPL-2.0
//
// error[E0382]: use of moved value: `area`: value used here after move

//! A page of somebody else that is mapped into an area twice: the second time finds something there,
//! which is a bug of the kernel (`remap_pte_range()`).

use crate::abstractions::{
    memremap::ForeignPage,
    vma::EmptyArea, //
};
use kernel::prelude::*;

fn map(page: &ForeignPage, area: EmptyArea<'_>) -> Result {
    let area = area.restrict_to_reading_one_page()?;

    page.map(area)?;

    #[cfg(not(sound))]
    page.map(area)?;

    Ok(())
}
