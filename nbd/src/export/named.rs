//! A fixed list of exports.

use super::{Export, Exports, Listed, OpenError, Peer};
use std::sync::Arc;

/// Exports that are all known beforehand. The first is the default export too.
#[derive(Default)]
pub struct Named {
    all: Vec<(String, Arc<dyn Export>)>,
}

impl Named {
    /// One export under a name.
    pub fn one(name: impl Into<String>, export: impl Export + 'static) -> Self {
        Self::default().and(name, Arc::new(export))
    }

    /// One more. Of two with the same name the first is found.
    #[must_use]
    pub fn and(mut self, name: impl Into<String>, export: Arc<dyn Export>) -> Self {
        self.all.push((name.into(), export));
        self
    }
}

impl Exports for Named {
    fn list(&self, _peer: &Peer) -> Vec<Listed> {
        let listed = self.all.iter().map(|(name, export)| Listed {
            name: name.clone(),
            description: export.info().description,
        });
        listed.collect()
    }

    fn open(&self, name: &str, _peer: &Peer) -> Result<Arc<dyn Export>, OpenError> {
        let by_name = self.all.iter().find(|(known, _)| known == name);
        let default = self.all.first().filter(|_| name.is_empty());
        let found = by_name.or(default);
        let (_, export) = found.ok_or_else(|| OpenError::unknown(name))?;
        Ok(Arc::clone(export))
    }
}
