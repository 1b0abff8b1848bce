//! The walk: which steps lead from a version to the newest, and taking them.

use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

const DOING: &str = "upgrading the store";

/// Something that says of which version it is.
pub trait Versioned {
    /// The version; refuses what is no store.
    fn version(&self) -> Result<u64>;
}

/// From one version to a later one.
pub struct Step<P> {
    /// The version that it leads on from, and whose bytes it knows.
    pub from: u64,
    /// The version that the store has afterwards.
    pub to: u64,
    /// What it does, in half a sentence.
    pub what: &'static str,
    /// Does it. Durable when it returns, the version last; cut off anywhere it may be done again from its beginning.
    pub run: fn(&P, &Progress) -> Result<()>,
}

/// Steps and the version that they lead to.
pub struct Walk<'s, P> {
    /// In order of the versions that they lead on from, each of which has one at most.
    pub steps: &'s [Step<P>],
    /// The version that the program reads and writes.
    pub newest: u64,
}

/// A walk that was taken, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walked {
    /// The version before.
    pub from: u64,
    /// The version now.
    pub to: u64,
    /// What the steps did, in order.
    pub steps: Vec<&'static str>,
}

impl<P: Versioned> Walk<'_, P> {
    /// Refuses a table of steps that leads nowhere.
    pub fn check(&self) -> Result<()> {
        for (i, step) in self.steps.iter().enumerate() {
            let next = self.steps.get(i + 1).map_or(self.newest, |next| next.from);
            if step.to <= step.from || step.to > self.newest || next < step.to {
                let why = format!("the step from {} to {} leads nowhere", step.from, step.to);
                return Err(Error::invalid(DOING, why));
            }
            self.steps_from(step.from)?;
        }
        Ok(())
    }

    /// The steps from a version to the newest; none where it is that. A version that is newer, or that no step leads on
    /// from, is refused.
    pub fn steps_from(&self, version: u64) -> Result<Vec<&Step<P>>> {
        if version > self.newest {
            let why = format!(
                "format version {version}, this program knows up to {}",
                self.newest
            );
            return Err(Error::new(ErrorKind::Unsupported, DOING).detail(why).hint(
                "use the release of still that wrote it, or a later one; its `still sync` brings the \
                 snapshots to a store of this version only if both know that version",
            ));
        }
        let (mut at, mut steps) = (version, Vec::new());
        while at < self.newest {
            let Some(step) = self.steps.iter().find(|step| step.from == at) else {
                return Err(self.no_way(at));
            };
            at = step.to;
            steps.push(step);
        }
        Ok(steps)
    }

    fn no_way(&self, at: u64) -> Error {
        let oldest = self.steps.first().map_or(self.newest, |step| step.from);
        let why =
            format!("no step leads on from format version {at}; the oldest known is {oldest}");
        Error::new(ErrorKind::Unsupported, DOING).detail(why).hint(
            "upgrade it first with a release of still that knows this version; CHANGELOG.md says which do",
        )
    }

    /// What is to be done, without doing it.
    pub fn plan(&self, place: &P) -> Result<Walked> {
        let from = place.version()?;
        let steps = self.steps_from(from)?;
        Ok(Walked {
            from,
            to: self.newest,
            steps: steps.iter().map(|step| step.what).collect(),
        })
    }

    /// Takes all steps. After an error the store is of the version of the last step that ended, and this may be done again.
    pub fn run(&self, place: &P, progress: &Progress) -> Result<Walked> {
        let walked = self.plan(place)?;
        for step in self.steps_from(walked.from)? {
            progress.check()?;
            (step.run)(place, progress)?;
            let now = place.version()?;
            if now != step.to {
                let why = format!(
                    "the step to format version {} left it at version {now}",
                    step.to
                );
                return Err(Error::corrupt(DOING, why));
            }
        }
        Ok(walked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// A made-up store: its version and what was done to it.
    struct Place(RefCell<(u64, Vec<&'static str>)>);

    impl Place {
        fn of(version: u64) -> Self {
            Self(RefCell::new((version, Vec::new())))
        }

        fn note(&self, version: u64, what: &'static str) {
            let mut place = self.0.borrow_mut();
            place.0 = version;
            place.1.push(what);
        }
    }

    impl Versioned for Place {
        fn version(&self) -> Result<u64> {
            Ok(self.0.borrow().0)
        }
    }

    fn step(from: u64, to: u64, run: fn(&Place, &Progress) -> Result<()>) -> Step<Place> {
        Step {
            from,
            to,
            what: "a step",
            run,
        }
    }

    fn steps() -> [Step<Place>; 3] {
        [
            step(1, 2, |p, _| {
                p.note(2, "1 to 2");
                Ok(())
            }),
            step(2, 4, |p, _| {
                p.note(4, "2 to 4");
                Ok(())
            }),
            step(4, 5, |p, _| {
                p.note(5, "4 to 5");
                Ok(())
            }),
        ]
    }

    fn walk(steps: &[Step<Place>]) -> Walk<'_, Place> {
        Walk { steps, newest: 5 }
    }

    #[test]
    fn every_step_is_taken_once_and_in_order() {
        let steps = steps();
        walk(&steps).check().unwrap();
        for (from, did) in [
            (1, &["1 to 2", "2 to 4", "4 to 5"][..]),
            (2, &["2 to 4", "4 to 5"]),
            (4, &["4 to 5"]),
            (5, &[]),
        ] {
            let place = Place::of(from);
            let walked = walk(&steps).run(&place, &Progress::default()).unwrap();
            assert_eq!((walked.from, walked.to), (from, 5));
            assert_eq!(walked.steps.len(), did.len());
            let place = place.0.into_inner();
            assert_eq!((place.0, &place.1[..]), (5, did));
        }
    }

    #[test]
    fn a_newer_version_and_one_without_a_step_are_refused_untouched() {
        let steps = steps();
        for (version, says) in [
            (6, "format version 6, this program knows up to 5"),
            (
                0,
                "no step leads on from format version 0; the oldest known is 1",
            ),
            (3, "no step leads on from format version 3"),
        ] {
            let place = Place::of(version);
            let e = walk(&steps).run(&place, &Progress::default()).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Unsupported);
            assert!(e.to_string().contains(says), "{e}");
            assert!(e.what_next().is_some());
            assert_eq!(place.0.into_inner(), (version, vec![]));
        }
    }

    #[test]
    fn after_a_step_that_failed_the_walk_goes_on_from_there() {
        let mut steps = steps();
        steps[1].run = |_, _| Err(Error::new(ErrorKind::NoSpace, "writing"));
        let place = Place::of(1);
        assert!(walk(&steps).run(&place, &Progress::default()).is_err());
        assert_eq!(place.version().unwrap(), 2);
        steps[1].run = |p, _| {
            p.note(4, "2 to 4");
            Ok(())
        };
        walk(&steps).run(&place, &Progress::default()).unwrap();
        assert_eq!(place.0.into_inner().1, ["1 to 2", "2 to 4", "4 to 5"]);
    }

    #[test]
    fn a_step_that_does_not_lead_where_it_says_is_found() {
        let steps = [step(1, 5, |p, _| {
            p.note(3, "astray");
            Ok(())
        })];
        let e = walk(&steps)
            .run(&Place::of(1), &Progress::default())
            .unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn tables_that_lead_nowhere_are_refused() {
        let none = |_: &Place, _: &Progress| Ok(());
        for bad in [
            vec![step(1, 1, none)],
            vec![step(1, 6, none)],
            vec![step(1, 2, none)],
            vec![step(1, 3, none), step(2, 5, none)],
        ] {
            assert!(walk(&bad).check().is_err());
        }
    }

    #[test]
    fn nobody_walks_on_who_was_asked_to_stop() {
        let (steps, place, progress) = (steps(), Place::of(1), Progress::default());
        progress.stop();
        let e = walk(&steps).run(&place, &progress).unwrap_err();
        assert_eq!(
            (e.kind(), place.version().unwrap()),
            (ErrorKind::Cancelled, 1)
        );
    }
}
