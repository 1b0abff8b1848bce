//! Devices, groups and snapshots over the engine.
