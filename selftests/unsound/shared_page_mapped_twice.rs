// SPDX-License-Identifier: GPL-2.0
//
// error[E0382]: use of moved value: `area`: value used here after move

//! A shared page that is mapped into an area twice: the area's file is not the device's any more the
//! second time.

use crate::abstractions::{
    atomic::InPlace,
    shared_page::SharedPage,
    vma::EmptyArea, //
};
use kernel::{
    fs::File,
    prelude::*,
    sync::Arc, //
};

#[derive(Clone)]
struct Holder(Arc<SharedPage<InPlace<u32>>>);

impl AsRef<SharedPage<InPlace<u32>>> for Holder {
    fn as_ref(&self) -> &SharedPage<InPlace<u32>> {
        &self.0
    }
}

fn map(holder: &Holder, area: EmptyArea<'_>, file: &File) -> Result {
    let area = area.restrict_to_reading_one_page()?;

    SharedPage::map(area, file, c"once", holder.clone())?;

    #[cfg(not(sound))]
    SharedPage::map(area, file, c"twice", holder.clone())?;

    Ok(())
}
