// SPDX-License-Identifier: GPL-2.0
//
// error[E0599]: no method named `set_mixedmap` found for struct `ReadOnlyPage` in the current scope: method not found in `ReadOnlyPage<'_>`

//! A page of somebody else that is mapped into an area in which there is one already.

use crate::abstractions::{
    memremap::ForeignPage,
    vma::EmptyArea, //
};
use kernel::{
    page::Page,
    prelude::*, //
};

fn map(page: &ForeignPage, another: &Page, area: EmptyArea<'_>, address: usize) -> Result {
    let area = area.restrict_to_reading_one_page()?;

    #[cfg(not(sound))]
    area.set_mixedmap().vm_insert_page(address, another)?;

    page.map(area)
}
