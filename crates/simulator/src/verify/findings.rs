//! The list of what is not as it should be.

use crate::report::{FINDINGS_KEPT, Finding};

/// Findings, as many as a person can look at.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub list: Vec<Finding>,
}

impl Findings {
    pub fn lost(&mut self, place: &'static str, id: String, detail: &str) {
        self.add("lost", place, id, detail);
    }

    pub fn duplicated(&mut self, place: &'static str, id: String, detail: &str) {
        self.add("duplicated", place, id, detail);
    }

    pub fn wrong(&mut self, place: &'static str, id: String, detail: &str) {
        self.add("wrong", place, id, detail);
    }

    fn add(&mut self, kind: &'static str, place: &'static str, id: String, detail: &str) {
        if self.list.len() < FINDINGS_KEPT {
            self.list.push(Finding { kind, place, id, detail: detail.to_owned() });
        }
    }
}
