//! What differs from contents in the store, a snapshot's: for increments.

use super::disk::Volume;
use super::overlay::union;
use super::seal::dirty;
use crate::error::Result;
use crate::format::entry::Content;
use std::ops::Range;
use std::sync::Arc;

/// What differs between two contents, remembered since it is asked for part by part.
pub struct Differences {
    pair: (Option<Content>, Content),
    runs: Arc<Vec<Range<u64>>>,
}

impl Volume<'_> {
    /// Tells `each` of a range within the volume, in order, which bytes may differ from `base`, from the manifests and the
    /// overlays' maps alone, until it answers false. Whoever asks keeps gc from `base`.
    pub fn changed_since(
        &self,
        base: Content,
        offset: u64,
        len: u64,
        each: &mut dyn FnMut(Range<u64>, bool) -> bool,
    ) -> Result<()> {
        let layers = self.layers();
        let range = self.checked(&layers, offset, len)?;
        let below = self.differences(layers.content(), base)?;
        let above = dirty(&layers.overlays, layers.size);
        let changed = union(below.iter().cloned(), above.into_iter());
        let mut at = range.start;
        for run in changed {
            let run = run.start.max(range.start)..run.end.min(range.end);
            if run.start >= run.end {
                continue;
            }
            if at < run.start && !each(at..run.start, false) {
                return Ok(());
            }
            if !each(run.clone(), true) {
                return Ok(());
            }
            at = run.end;
        }
        if at < range.end {
            each(at..range.end, false);
        }
        Ok(())
    }

    fn differences(&self, head: Option<Content>, base: Content) -> Result<Arc<Vec<Range<u64>>>> {
        let pair = (head, base);
        let mut known = self
            .differences
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|d| d.pair == pair) {
            return Ok(known.runs.clone());
        }
        let mut runs: Vec<Range<u64>> = Vec::new();
        match head {
            Some(head) => {
                for extent in self.shared.store.diff(base, head)? {
                    runs.push(extent.start..extent.start + extent.length);
                }
            }
            // Nothing below: all that the base has is gone.
            None => runs.push(0..base.size),
        }
        let runs = Arc::new(runs);
        *known = Some(Differences {
            pair,
            runs: runs.clone(),
        });
        Ok(runs)
    }
}
