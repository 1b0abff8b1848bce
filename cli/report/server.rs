//! What `serve` and `mount` report when they have ended.

use serde::Serialize;

/// `serve`, when it has ended.
#[derive(Debug, Clone, Serialize)]
pub struct Served {
    /// Addresses that were listened on.
    pub listened: Vec<String>,
    /// Every request that was read was answered.
    pub clean: bool,
    /// How long it was served.
    pub seconds: f64,
}

/// `mount`, when it has ended.
#[derive(Debug, Clone, Serialize)]
pub struct Mounted {
    /// Where it was mounted.
    pub folder: String,
    /// How long.
    pub seconds: f64,
}
