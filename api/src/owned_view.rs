//! A view that keeps its store open: for whoever cannot borrow the system, since it outlives the call that opened it.

use crate::read::VIEW_CACHE_BYTES;
use crate::system::System;
use self_cell::self_cell;
use std::fmt;
use std::sync::Arc;
use stillpoint_store::Result;
use stillpoint_store::format::entry::Content;
use stillpoint_store::ops::view::View;

self_cell! {
    struct Held {
        owner: Arc<System>,

        #[not_covariant]
        dependent: View,
    }
}

/// A [`View`] that holds its system: pinned and cached as any, and it can be kept anywhere.
///
/// ```
/// use std::sync::Arc;
/// use stillpoint_api::{Create, OpenOptions, OwnedView, Part, System};
/// # use stillpoint_api::store::geometry::Geometry;
/// # use stillpoint_api::store::progress::Progress;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let (store, image) = (folder.path().join("store"), folder.path().join("web1.raw"));
/// # std::fs::write(&image, vec![1; 100_000])?;
/// # System::init(&store, Geometry::DEFAULT)?;
/// # let progress = Progress::default();
/// fn opened(system: &Arc<System>) -> stillpoint_api::Result<OwnedView> {
///     OwnedView::open(system, system.content_of("web1@monday", Part::Disk)?)
/// }
///
/// let system = Arc::new(System::open(&store, OpenOptions::default())?);
/// # system.device_add("web1", &image, "raw", false)?;
/// # let monday = Create { name: Some("monday".into()), ..Create::default() };
/// # system.create(&monday, &progress)?;
/// let view = opened(&system)?;
/// drop(system);
/// let mut tail = [7; 8];
/// view.with(|view| view.read_at(99_995, &mut tail))?;
/// assert_eq!(tail, [1, 1, 1, 1, 1, 7, 7, 7]);
/// # Ok(())
/// # }
/// ```
pub struct OwnedView {
    held: Held,
    content: Content,
}

impl OwnedView {
    /// Opens contents that a snapshot or head names now, and pins them.
    pub fn open(system: &Arc<System>, content: Content) -> Result<Self> {
        let held = Held::try_new(system.clone(), |system| {
            system.store.view(content, VIEW_CACHE_BYTES)
        })?;
        Ok(Self { held, content })
    }

    /// What it is a view of.
    pub fn content(&self) -> Content {
        self.content
    }

    /// Fills `into` from any offset; what lies behind the end is zeros.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        let there = self.with(|view| view.read_at(offset, into))?;
        into[there..].fill(0);
        Ok(())
    }

    /// The view, for everything that one can do.
    pub fn with<T>(&self, ask: impl FnOnce(&View<'_>) -> T) -> T {
        self.held.with_dependent(|_, view| ask(view))
    }
}

impl fmt::Debug for OwnedView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|view| view.fmt(f))
    }
}
