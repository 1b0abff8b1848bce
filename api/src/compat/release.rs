//! Which QEMU release to behave as.

use crate::compat::eras::{ERAS, Flags};
use std::fmt;
use std::str::FromStr;
use stillpoint_store::{Error, Result};

/// Last minor number of each major release, from 1 on.
const LAST_MINOR: [u8; 11] = [7, 12, 1, 2, 2, 2, 2, 2, 2, 2, 1];

/// A QEMU release from 1.0 to 11.1, by its first tree (`X.Y.0`). Fixes that a stable release such as 2.11.2 took over are
/// not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    major: u8,
    minor: u8,
}

impl Release {
    /// The first release that is known.
    pub const FIRST: Self = Self { major: 1, minor: 0 };
    /// The last release that is known.
    pub const LAST: Self = Self {
        major: 11,
        minor: 1,
    };
    /// The release of the seed's header.
    pub const DEFAULT: Self = Self { major: 4, minor: 2 };

    /// The release `major.minor`. `InvalidInput`, with the eras in the text, where there is none.
    pub fn new(major: u8, minor: u8) -> Result<Self> {
        let known = |last: &u8| minor <= *last;
        let index = usize::from(major).checked_sub(1);
        match index.and_then(|i| LAST_MINOR.get(i)).filter(|l| known(l)) {
            Some(_) => Ok(Self { major, minor }),
            None => Err(unknown(&format!("{major}.{minor}"))),
        }
    }

    /// Its first number.
    pub fn major(self) -> u8 {
        self.major
    }

    /// Its second number.
    pub fn minor(self) -> u8 {
        self.minor
    }

    /// For the table: unlike `new`, not checked.
    pub(super) const fn at(major: u8, minor: u8) -> Self {
        Self { major, minor }
    }

    /// How it behaved.
    pub fn flags(self) -> Flags {
        Flags::of(self)
    }

    /// All that are known, oldest first.
    pub fn all() -> impl Iterator<Item = Self> {
        let majors = (1u8..).zip(LAST_MINOR);
        majors.flat_map(|(major, last)| (0..=last).map(move |minor| Self { major, minor }))
    }

    /// The one before it.
    pub fn previous(self) -> Option<Self> {
        Self::all().take_while(|r| *r < self).last()
    }
}

impl Default for Release {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.major, self.minor))
    }
}

impl FromStr for Release {
    type Err = Error;

    /// Reads `4.2`, or `4.2.0`; a later stable release is refused, since what it took over is not known.
    fn from_str(text: &str) -> Result<Self> {
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse::<u8>().ok()).flatten()
        };
        let parts: Vec<Option<u8>> = text.split('.').map(number).collect();
        match parts[..] {
            [Some(major), Some(minor)] | [Some(major), Some(minor), Some(0)] => {
                Self::new(major, minor).map_err(|_| unknown(text))
            }
            _ => Err(unknown(text)),
        }
    }
}

fn unknown(text: &str) -> Error {
    let eras: Vec<String> = ERAS
        .iter()
        .map(|e| format!("{} ({})", e.key, e.range()))
        .collect();
    Error::invalid(
        "choosing a QEMU release",
        format!(
            "{text:?} is none that is known; the eras are {}",
            eras.join(", ")
        ),
    )
    .hint("name a release as in 4.2; `still eras` says how they differ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_release_from_1_0_to_11_1_is_known_and_no_other() {
        let all: Vec<Release> = Release::all().collect();
        assert_eq!(all.first(), Some(&Release::FIRST));
        assert_eq!(all.last(), Some(&Release::LAST));
        assert!(all.is_sorted());
        for release in &all {
            assert_eq!(release.to_string().parse::<Release>().unwrap(), *release);
            assert_eq!(
                Release::new(release.major(), release.minor()).unwrap(),
                *release
            );
        }
        for text in ["0.15", "1.8", "2.13", "3.2", "4.3", "11.2", "12.0", "256.0"] {
            assert!(text.parse::<Release>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_release_is_padded_like_any_text() {
        assert_eq!(format!("{:6}|", Release::DEFAULT), "4.2   |");
    }

    #[test]
    fn the_default_is_the_release_of_the_seed() {
        assert_eq!(Release::default(), Release::new(4, 2).unwrap());
    }

    #[test]
    fn a_release_that_is_unknown_is_an_error_that_lists_the_eras() {
        let odd = [
            "", "4", "4.", ".2", "+4.2", "4.2.1", "4.2.0.0", "v4.2", "4.2 ", "5.3",
        ];
        for text in odd {
            let e = text.parse::<Release>().unwrap_err();
            for era in ERAS {
                assert!(e.to_string().contains(era.key), "{e}");
            }
        }
        assert_eq!("4.2.0".parse::<Release>().unwrap(), Release::DEFAULT);
    }

    #[test]
    fn the_release_before_one_is_the_last_of_the_major_before() {
        let r = |text: &str| text.parse::<Release>().unwrap();
        assert_eq!(r("2.0").previous(), Some(r("1.7")));
        assert_eq!(r("3.0").previous(), Some(r("2.12")));
        assert_eq!(Release::FIRST.previous(), None);
    }
}
