//! Jobs: what goes on in the background. Their states are those of QEMU's (`JobStatus`, 3.0 on) as its snapshot jobs go
//! through them: created, running, then waiting, pending and concluded, or aborting and concluded; then somebody dismisses them.

use super::error::QmpError;
use super::lock;
use serde_json::{Value, json};
use std::sync::Mutex;

/// Jobs that are kept, dismissed or not, at most.
const JOBS: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub struct Jobs {
    all: Mutex<Vec<Job>>,
}

#[derive(Debug)]
struct Job {
    id: String,
    kind: &'static str,
    status: &'static str,
    error: Option<String>,
    /// The thread has come to its end.
    over: bool,
}

impl Jobs {
    /// A new job. Refuses ids that are taken or no ids.
    pub fn create(&self, id: &str, kind: &'static str) -> Result<(), QmpError> {
        if !is_id(id) {
            return Err(QmpError::new(format!("Invalid job ID '{id}'")));
        }
        let mut all = lock(&self.all);
        if all.iter().any(|job| job.id == id) {
            return Err(QmpError::new(format!("Job ID '{id}' already in use")));
        }
        if all.len() == JOBS {
            return Err(QmpError::new(
                "Too many jobs: dismiss some that are concluded",
            ));
        }
        all.push(Job {
            id: id.to_owned(),
            kind,
            status: "created",
            error: None,
            over: false,
        });
        Ok(())
    }

    /// Its next state.
    pub fn step(&self, id: &str, status: &'static str) {
        if let Some(job) = lock(&self.all).iter_mut().find(|job| job.id == id) {
            job.status = status;
        }
    }

    /// What it failed with.
    pub fn fail(&self, id: &str, error: &QmpError) {
        if let Some(job) = lock(&self.all).iter_mut().find(|job| job.id == id) {
            job.error = Some(error.desc().to_owned());
        }
    }

    /// Nothing more will come of it.
    pub fn over(&self, id: &str) {
        if let Some(job) = lock(&self.all).iter_mut().find(|job| job.id == id) {
            job.over = true;
        }
    }

    /// Whether any is at work.
    pub fn any_at_work(&self) -> bool {
        lock(&self.all).iter().any(|job| !job.over)
    }

    /// All of them, for `query-jobs`.
    pub fn list(&self) -> Value {
        let all = lock(&self.all);
        let list = all.iter().map(|job| {
            let done = u64::from(job.status == "concluded");
            let mut info = json!({
                "id": job.id,
                "type": job.kind,
                "status": job.status,
                "current-progress": done,
                "total-progress": 1,
            });
            if let Some(error) = &job.error {
                info["error"] = json!(error);
            }
            info
        });
        list.collect()
    }

    /// Forgets one that is concluded.
    pub fn dismiss(&self, id: &str) -> Result<(), QmpError> {
        let mut all = lock(&self.all);
        let at = all.iter().position(|job| job.id == id);
        let at = at.ok_or_else(|| QmpError::new("Job not found"))?;
        let status = all[at].status;
        if status != "concluded" {
            let desc =
                format!("Job '{id}' in state '{status}' cannot accept command verb 'dismiss'");
            return Err(QmpError::new(desc));
        }
        all.remove(at);
        Ok(())
    }
}

/// A letter, then letters, digits, `-`, `.` and `_`.
fn is_id(id: &str) -> bool {
    let rest = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    id.starts_with(|c: char| c.is_ascii_alphabetic()) && id.chars().all(rest) && id.len() < 128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_words_that_are_used_once() {
        let jobs = Jobs::default();
        for bad in ["", "1", "-a", "a b", "\u{e9}"] {
            assert!(jobs.create(bad, "snapshot-save").is_err(), "{bad}");
        }
        jobs.create("a-1", "snapshot-save").unwrap();
        assert!(jobs.create("a-1", "snapshot-save").is_err());
        assert!(jobs.dismiss("a-1").is_err(), "it is not concluded");
        assert!(jobs.any_at_work());
        jobs.step("a-1", "concluded");
        jobs.over("a-1");
        jobs.dismiss("a-1").unwrap();
        assert_eq!(jobs.dismiss("a-1").unwrap_err().desc(), "Job not found");
    }
}
