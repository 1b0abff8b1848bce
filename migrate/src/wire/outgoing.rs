//! The sending side of a bundle and of a sync: contents as windows of changes.

use super::edits::{Edits, WINDOW_MAX};
use super::message::{Message, Step};
use super::plan::Cargo;
use stillpoint_store::Result;
use stillpoint_store::ops::give::Trees;

/// Takes the messages of the contents in order: `Content`, `Edits` and `ContentEnd`.
pub type Tell<'a> = &'a mut dyn FnMut(Message) -> Result<()>;

/// The messages that say what comes.
pub fn announce(cargo: &Cargo, mut tell: impl FnMut(Message) -> Result<()>) -> Result<()> {
    for base in &cargo.bases {
        tell(Message::Base(base.clone()))?;
    }
    for device in &cargo.devices {
        tell(Message::Device(device.clone()))?;
    }
    for record in &cargo.records {
        tell(Message::Snapshot(record.clone()))?;
    }
    Ok(())
}

/// Tells all contents in windows of at most so many changes; holds one in memory. Returns the number of windows.
pub fn tell_contents(
    trees: &Trees<'_>,
    steps: &[Step],
    window_max: usize,
    tell: Tell<'_>,
) -> Result<u64> {
    let mut window = 0;
    for step in steps {
        tell(Message::Content(*step))?;
        let mut edits = Edits {
            window,
            runs: Vec::new(),
        };
        trees.changes(step.base, step.content, &mut |run| {
            edits.runs.push(run);
            if edits.runs.len() >= window_max.clamp(1, WINDOW_MAX) {
                window += 1;
                let next = Edits {
                    window,
                    runs: Vec::new(),
                };
                return tell(Message::Edits(std::mem::replace(&mut edits, next)));
            }
            Ok(())
        })?;
        if !edits.runs.is_empty() {
            window += 1;
            tell(Message::Edits(edits))?;
        }
        tell(Message::ContentEnd)?;
    }
    Ok(u64::from(window))
}
