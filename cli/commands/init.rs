//! `still init`.

use crate::context::Context;
use crate::output::{Answer, Report, units};
use crate::report::Initialised;
use crate::size;
use clap::Args;
use stillpoint_api::System;
use stillpoint_store::Result;
use stillpoint_store::geometry::{Compression, Geometry};

/// Arguments of `init`.
#[derive(Debug, Args)]
#[command(after_help = "\
The sizes are fixed for good: smaller clusters find more that is equal and need more memory.

Example:
  still init --store /srv/disks --cluster-size 64K --compression zstd:1")]
pub struct Arguments {
    /// Bytes of a cluster: a power of two from 4K to 1M [default: 8K]
    #[arg(long, value_name = "N", value_parser = size::parse_u32)]
    cluster_size: Option<u32>,
    /// Bytes compressed together: a multiple of the cluster size up to 4M [default: 1M]
    #[arg(long, value_name = "N", value_parser = size::parse_u32)]
    frame_size: Option<u32>,
    /// zstd:1 (fast) to zstd:19 (small), or none [default: zstd:6]
    #[arg(long, value_name = "zstd:N|none", value_parser = compression)]
    compression: Option<Compression>,
}

/// Makes the store.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let geometry = arguments.geometry().check()?;
    System::init(&context.store, geometry)?;
    Ok(Answer::of(Initialised {
        store: context.store.display().to_string(),
        cluster_bytes: geometry.cluster_bytes,
        frame_bytes: geometry.frame_bytes,
        compression: compression_name(geometry.compression),
    }))
}

impl Arguments {
    fn geometry(&self) -> Geometry {
        let default = Geometry::DEFAULT;
        let cluster_bytes = self.cluster_size.unwrap_or(default.cluster_bytes);
        Geometry {
            cluster_bytes,
            frame_bytes: self
                .frame_size
                .unwrap_or(default.frame_bytes.max(cluster_bytes)),
            compression: self.compression.unwrap_or(default.compression),
        }
    }
}

fn compression(text: &str) -> std::result::Result<Compression, String> {
    let level = match text {
        "none" => return Ok(Compression::None),
        _ => text
            .strip_prefix("zstd:")
            .and_then(|level| level.parse().ok()),
    };
    let level = level.filter(|level| (1..=19).contains(level));
    level
        .map(Compression::Zstd)
        .ok_or_else(|| "it is none, or zstd:1 to zstd:19".into())
}

fn compression_name(compression: Compression) -> String {
    match compression {
        Compression::None => "none".into(),
        Compression::Zstd(level) => format!("zstd:{level}"),
    }
}

impl Report for Initialised {
    fn text(&self) -> String {
        format!(
            "made the store {}: clusters of {}, frames of {}, compression {}\n",
            crate::output::escape::escape(&self.store),
            units::exact_size(self.cluster_bytes.into()),
            units::exact_size(self.frame_bytes.into()),
            self.compression
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_cluster_takes_its_frame_along() {
        let arguments = Arguments {
            cluster_size: Some(1 << 20),
            frame_size: None,
            compression: None,
        };
        assert_eq!(arguments.geometry().frame_bytes, 1 << 20);
        assert!(arguments.geometry().check().is_ok());
    }

    #[test]
    fn compression_is_spelled_as_it_is_read() {
        for text in ["none", "zstd:1", "zstd:19"] {
            assert_eq!(compression(text).map(compression_name), Ok(text.to_owned()));
        }
        for text in ["zstd", "zstd:20", "zstd:-1", "lz4", ""] {
            assert!(compression(text).is_err(), "{text}");
        }
    }
}
