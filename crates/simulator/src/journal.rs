//! What became of each notification that was sent.
//!
//! A file of it is text: the plan as JSON on the first line, then one line per event,
//! `<call> <part> <outcome>`. A run that was killed is verified from it: what was sent last may be
//! missing, and counts as unanswered.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::SimulatorError;
use crate::script::{MAX_STATUSES, Plan};

/// Number of a CDR among a call's parts; statuses are numbered from 0.
pub(crate) const CDR: u8 = MAX_STATUSES as u8;
/// Number of the unreadable record that a call's message carries as well.
pub(crate) const MALFORMED: u8 = CDR + 1;
/// Parts of a call.
pub(crate) const PARTS: usize = MALFORMED as usize + 1;

/// What became of a notification. Of several attempts the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// Never reached an edge.
    NotSent,
    /// Answered by something else than 200.
    Refused,
    /// Sent, and no answer seen: may have been taken or not.
    Unknown,
    /// Answered 200.
    Acknowledged,
}

impl Outcome {
    const fn letter(self) -> char {
        match self {
            Self::NotSent => 'n',
            Self::Refused => 'r',
            Self::Unknown => 'u',
            Self::Acknowledged => 'a',
        }
    }

    fn of_letter(letter: &str) -> Option<Self> {
        [Self::NotSent, Self::Refused, Self::Unknown, Self::Acknowledged]
            .into_iter()
            .find(|outcome| letter.starts_with(outcome.letter()) && letter.len() == 1)
    }
}

/// One notification, or one record of a CDR message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Part {
    pub call: u64,
    pub part: u8,
}

/// Outcomes by call and part, and the file they are appended to.
pub(crate) struct Journal {
    pub plan: Plan,
    calls: Vec<[Option<Outcome>; PARTS]>,
    /// What a part without an outcome counts as.
    untold: Outcome,
    file: Option<(PathBuf, BufWriter<File>)>,
}

impl Journal {
    /// An empty one, with a new file if one is asked for.
    pub fn new(plan: Plan, path: Option<&Path>) -> Result<Self, SimulatorError> {
        let file = match path {
            None => None,
            Some(path) => {
                let failed = |error| SimulatorError::file("create", path, &error);
                let mut file = BufWriter::new(File::create(path).map_err(failed)?);
                let head = serde_json::to_string(&plan).map_err(|error| {
                    SimulatorError::Journal { path: path.into(), reason: error.to_string() }
                })?;
                writeln!(file, "{head}").map_err(failed)?;
                file.flush().map_err(failed)?;
                Some((path.to_owned(), file))
            }
        };
        Ok(Self { plan, calls: Vec::new(), untold: Outcome::NotSent, file })
    }

    /// Reads one back. The last line may be torn.
    pub fn read(path: &Path) -> Result<Self, SimulatorError> {
        let wrong = |reason: String| SimulatorError::Journal { path: path.into(), reason };
        let file = File::open(path).map_err(|it| SimulatorError::file("read", path, &it))?;
        let mut lines = BufReader::new(file).lines();
        let head = lines.next().and_then(Result::ok).unwrap_or_default();
        let plan = serde_json::from_str(&head).map_err(|error| {
            wrong(format!("its first line is no plan ({:?})", error.classify()))
        })?;
        let mut journal = Self { plan, calls: Vec::new(), untold: Outcome::Unknown, file: None };
        for line in lines.map_while(Result::ok) {
            let mut words = line.split(' ');
            let part = words.next().and_then(|it| it.parse().ok()).zip(
                words.next().and_then(|it| it.parse().ok()).filter(|it: &u8| *it <= MALFORMED),
            );
            let (Some((call, part)), Some(outcome)) = (part, words.next()) else { continue };
            if let Some(outcome) = Outcome::of_letter(outcome)
                && journal.plan.calls.is_none_or(|calls| call < calls)
            {
                journal.note(Part { call, part }, outcome);
            }
        }
        Ok(journal)
    }

    /// Notes an outcome.
    pub fn note(&mut self, part: Part, outcome: Outcome) {
        let call = part.call as usize;
        if self.calls.len() <= call {
            self.calls.resize(call + 1, [None; PARTS]);
        }
        if let Some(slot) = self.calls[call].get_mut(usize::from(part.part)) {
            *slot = (*slot).max(Some(outcome));
        }
        if let Some((_, file)) = &mut self.file {
            // A failure is reported by the next flush.
            let _ = writeln!(file, "{} {} {}", part.call, part.part, outcome.letter());
        }
    }

    /// Hands what was noted to the system. What is noted after the last flush may be lost with
    /// the process, and counts as unanswered then.
    pub fn flush(&mut self) -> Result<(), SimulatorError> {
        match &mut self.file {
            None => Ok(()),
            Some((path, file)) => {
                file.flush().map_err(|error| SimulatorError::file("write", path, &error))
            }
        }
    }

    /// The outcome of a part that the call has.
    pub fn outcome(&self, part: Part) -> Outcome {
        let call = usize::try_from(part.call).ok().and_then(|call| self.calls.get(call));
        call.and_then(|parts| *parts.get(usize::from(part.part))?).unwrap_or(self.untold)
    }

    /// How many calls it may tell of.
    pub fn calls(&self) -> u64 {
        // Of a run that was killed, one more flush interval of calls may have begun.
        let told = self.calls.len() as u64;
        if self.untold == Outcome::NotSent {
            return told;
        }
        let unflushed = (self.plan.rate * 2.0).ceil() as u64 + 1;
        self.plan.calls.map_or(told + unflushed, |calls| calls.min(told + unflushed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Faults;
    use crate::script::tests::plan;

    #[test]
    fn a_journal_is_read_back_with_the_best_outcome_of_each_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::new(plan(Faults::all()), Some(&path)).unwrap();
        let (cdr, status) = (Part { call: 2, part: CDR }, Part { call: 0, part: 1 });
        journal.note(cdr, Outcome::Refused);
        journal.note(cdr, Outcome::Acknowledged);
        journal.note(cdr, Outcome::Unknown);
        journal.note(status, Outcome::Unknown);
        journal.flush().unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"3 1").unwrap();

        let read = Journal::read(&path).unwrap();
        assert_eq!(read.plan, journal.plan);
        assert_eq!(read.outcome(cdr), Outcome::Acknowledged);
        assert_eq!(read.outcome(status), Outcome::Unknown);
        // What may have been sent and not been written down.
        assert_eq!(read.outcome(Part { call: 1, part: 0 }), Outcome::Unknown);
        assert_eq!(journal.outcome(Part { call: 1, part: 0 }), Outcome::NotSent);
        assert!(read.calls() > journal.calls());
    }

    #[test]
    fn another_file_is_refused_without_quoting_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other");
        std::fs::write(&path, "+8613800000021").unwrap();
        let error = Journal::read(&path).err().unwrap().to_string();
        assert!(!error.contains("138000"), "{error}");
        assert!(Journal::read(&dir.path().join("none")).is_err());
    }
}
