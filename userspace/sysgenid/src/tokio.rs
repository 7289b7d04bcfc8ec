// SPDX-License-Identifier: MIT OR Apache-2.0

//! Waiting for a change in a tokio runtime.

use std::io;

use ::tokio::io::Interest;
use ::tokio::io::unix::AsyncFd;

use crate::Error;
use crate::GENERATION_NODE;
use crate::Generation;
use crate::Result;
use crate::Watcher;

/// A [`Watcher`] for a tokio runtime (feature `tokio`).
#[derive(Debug)]
pub struct AsyncWatcher(AsyncFd<Watcher>);

impl AsyncWatcher {
    /// Gives the watcher to the runtime that this is called in.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// # let runtime = tokio::runtime::Builder::new_current_thread()
    /// #     .enable_all()
    /// #     .build()
    /// #     .expect("a runtime");
    /// # runtime.block_on(async {
    /// use sysgenid::AsyncWatcher;
    /// use sysgenid::Watcher;
    ///
    /// let watcher = AsyncWatcher::new(Watcher::open()?)?;
    /// # sysgenid::Overseer::open()?.trigger(0)?;
    /// let generation = watcher.wait().await?;
    /// // … rebuild …
    /// watcher.get_ref().ack(generation)?;
    /// # Ok(())
    /// # })
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the runtime cannot take it.
    ///
    /// # Panics
    ///
    /// Outside of a runtime, or in one that does no input and output, as [`AsyncFd`] does.
    #[track_caller]
    pub fn new(watcher: Watcher) -> Result<Self> {
        // Its successor is in no version of tokio with long-term support yet.
        #[allow(deprecated)]
        AsyncFd::with_interest(watcher, Interest::READABLE)
            .map(Self)
            .map_err(cannot("poll"))
    }

    /// Waits until the watcher is outdated, and returns the generation.
    ///
    /// It can be cancelled: nothing is lost.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// # let runtime = tokio::runtime::Builder::new_current_thread()
    /// #     .enable_all()
    /// #     .build()
    /// #     .expect("a runtime");
    /// # runtime.block_on(async {
    /// # use sysgenid::AsyncWatcher;
    /// # use sysgenid::Watcher;
    /// use std::time::Duration;
    ///
    /// let watcher = AsyncWatcher::new(Watcher::open()?)?;
    /// let wait = tokio::time::timeout(Duration::from_millis(10), watcher.wait());
    /// assert!(wait.await.is_err(), "nothing has changed");
    /// # Ok(())
    /// # })
    /// # });
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Watcher::wait`].
    pub async fn wait(&self) -> Result<Generation> {
        loop {
            let mut ready = self.0.readable().await.map_err(cannot("wait for"))?;
            if let Some(generation) = self.0.get_ref().outdated()? {
                return Ok(generation);
            }
            // It was ready for a change that has been acknowledged since. Had another one come after
            // the look, then the runtime would know, and not clear that.
            ready.clear_ready();
        }
    }

    /// The watcher: to acknowledge, for example.
    ///
    /// ```
    /// # sysgenid::__on_the_device(|| {
    /// # let runtime = tokio::runtime::Builder::new_current_thread()
    /// #     .enable_all()
    /// #     .build()
    /// #     .expect("a runtime");
    /// # runtime.block_on(async {
    /// # use sysgenid::AsyncWatcher;
    /// # use sysgenid::Watcher;
    /// let watcher = AsyncWatcher::new(Watcher::open()?)?;
    /// watcher.get_ref().set_tracked(true)?;
    /// # Ok(())
    /// # })
    /// # });
    /// ```
    #[must_use]
    pub fn get_ref(&self) -> &Watcher {
        self.0.get_ref()
    }
}

fn cannot(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |source| Error::Io {
        action,
        node: GENERATION_NODE.into(),
        source,
    }
}
