//! The rules of the commit protocol that a test can switch off, to see that something notices. Production has them all.

/// One field a rule; true: it holds. See section 3.2 of the design.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a rule of its own, named as in the design"
)]
pub struct Rules {
    /// Roots that are relied on or pinned must be reachable.
    pub roots_reachable: bool,
    /// Packs that are relied on or pinned must be live.
    pub packs_live: bool,
    /// Ops are valid only while their session is open.
    pub session_open: bool,
    /// Packs of open sessions are not dropped.
    pub spare_open: bool,
    /// Pinned packs are not dropped.
    pub spare_pinned: bool,
    /// Packs named, pinned or kept after the marking are not dropped.
    pub spare_named: bool,
    /// Kept packs must be live.
    pub kept_live: bool,
    /// Kept packs count as named.
    pub kept_named: bool,
    /// An entry counts once.
    pub counter_newer: bool,
    /// Roots of a goto under way are reachable.
    pub goto_reachable: bool,
    /// A snapshot counts only while its device was in no goto since its image was locked.
    pub gotos_counted: bool,
    /// A volume is moved on only from where its chain is.
    pub chain_expected: bool,
    /// An entry follows the one whose checksum it names.
    pub chain_checked: bool,
    /// Whoever acts first looks for a checkpoint above.
    pub look_for_checkpoint: bool,
    /// A checkpoint holds when packs were last named.
    pub checkpoint_names: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            roots_reachable: true,
            packs_live: true,
            session_open: true,
            spare_open: true,
            spare_pinned: true,
            spare_named: true,
            kept_live: true,
            kept_named: true,
            counter_newer: true,
            goto_reachable: true,
            gotos_counted: true,
            chain_expected: true,
            chain_checked: true,
            look_for_checkpoint: true,
            checkpoint_names: true,
        }
    }
}
