//! Where a store is: a folder here, or one on another host.

use std::path::PathBuf;
use stillpoint_store::{Error, Result};

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder.
    Here(PathBuf),
    /// A folder of another host.
    There {
        /// What the command that runs others there calls it.
        host: String,
        /// The folder.
        path: String,
    },
}

impl Place {
    /// Reads `PATH` or `ssh:HOST:PATH`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::invalid(format!("reading the place {text:?}"), why);
        let Some(rest) = text.strip_prefix("ssh:") else {
            if text.is_empty() {
                return Err(bad("it names nothing"));
            }
            return Ok(Self::Here(text.into()));
        };
        let (host, path) = rest.split_once(':').unwrap_or((rest, ""));
        if host.is_empty() || path.is_empty() {
            return Err(bad("it is not ssh:HOST:PATH"));
        }
        // The command would take it for an option, and options can run programs.
        if host.starts_with('-') {
            return Err(bad("a host does not begin with a dash"));
        }
        let (host, path) = (host.into(), path.into());
        Ok(Self::There { host, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_folder_or_a_host_and_a_folder() {
        assert_eq!(
            Place::parse("/srv/a:b").unwrap(),
            Place::Here("/srv/a:b".into())
        );
        let there = Place::There {
            host: "me@web".into(),
            path: "/srv/a:b".into(),
        };
        assert_eq!(Place::parse("ssh:me@web:/srv/a:b").unwrap(), there);
        for bad in [
            "",
            "ssh:",
            "ssh:web",
            "ssh:web:",
            "ssh::/srv",
            "ssh:-oProxyCommand=x:/srv",
        ] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
