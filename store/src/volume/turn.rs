//! Turns: one at a time changes a volume's chain of overlays, from beginning to end.

use super::disk::Volume;
use crate::id::Uid;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Whose turn it is.
#[derive(Debug, Default)]
pub struct Turns {
    taken: Mutex<bool>,
    free: Condvar,
}

/// The right to change a volume's chain, until it is dropped.
pub struct Turn<'a>(Arc<Volume<'a>>);

impl<'a> Turn<'a> {
    /// Waits for whoever has it.
    pub fn take(volume: Arc<Volume<'a>>) -> Self {
        let turns = &volume.turns;
        let mut taken = turns.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken {
            taken = turns
                .free
                .wait(taken)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *taken = true;
        drop(taken);
        Self(volume)
    }

    /// Those of several volumes, each once, in the one order that everybody takes them in.
    pub fn take_all(mut volumes: Vec<Arc<Volume<'a>>>) -> Vec<Self> {
        volumes.sort_by_key(|v| v.device());
        volumes.dedup_by_key(|v| v.device());
        volumes.into_iter().map(Self::take).collect()
    }

    /// Whose it is.
    pub fn volume(&self) -> &Arc<Volume<'a>> {
        &self.0
    }
}

/// The volume of that device among turns.
pub fn of<'t, 'a>(turns: &'t [Turn<'a>], device: &Uid) -> Option<&'t Arc<Volume<'a>>> {
    turns
        .iter()
        .map(Turn::volume)
        .find(|v| v.device() == *device)
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let turns = &self.0.turns;
        *turns.taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
        turns.free.notify_one();
    }
}
