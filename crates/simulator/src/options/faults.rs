//! What can go wrong between a platform and its customer, on demand.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One way in which a platform, or the network before it, misbehaves (P 12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// A CDR message comes again although it was answered 200: the answer was lost.
    Duplicate,
    /// A status comes after the next one of its call.
    OutOfOrder,
    /// The disconnect comes after the CDR.
    CdrBeforeDisconnect,
    /// No ringing is reported.
    MissingAlerting,
    /// No disconnect is reported; the CDR alone ends the call.
    MissingDisconnect,
    /// The end is reported twice.
    TwoDisconnects,
    /// A batch of up to 50 CDRs contains a record that cannot be read.
    MalformedRecord,
    /// Integers come as text.
    NumbersAsStrings,
    /// Two blanks between date and time.
    DoubleBlanks,
    /// Fields that no page documents.
    UnknownFields,
    /// A status of a type that no page documents.
    UnknownEventType,
    /// `Transfer-Encoding: chunked` instead of a length.
    Chunked,
    /// The body comes in pieces, with pauses.
    SlowBody,
    /// The connection is closed right after the last byte, without waiting for the answer.
    CloseAfterSending,
    /// A request whose connection is closed among kept-alive ones, or kept alive among short ones.
    MixedConnections,
}

impl Fault {
    /// All of them, in the order in which they are drawn.
    pub const ALL: [Self; 15] = [
        Self::Duplicate,
        Self::OutOfOrder,
        Self::CdrBeforeDisconnect,
        Self::MissingAlerting,
        Self::MissingDisconnect,
        Self::TwoDisconnects,
        Self::MalformedRecord,
        Self::NumbersAsStrings,
        Self::DoubleBlanks,
        Self::UnknownFields,
        Self::UnknownEventType,
        Self::Chunked,
        Self::SlowBody,
        Self::CloseAfterSending,
        Self::MixedConnections,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::OutOfOrder => "out-of-order",
            Self::CdrBeforeDisconnect => "cdr-before-disconnect",
            Self::MissingAlerting => "missing-alerting",
            Self::MissingDisconnect => "missing-disconnect",
            Self::TwoDisconnects => "two-disconnects",
            Self::MalformedRecord => "malformed-record",
            Self::NumbersAsStrings => "numbers-as-strings",
            Self::DoubleBlanks => "double-blanks",
            Self::UnknownFields => "unknown-fields",
            Self::UnknownEventType => "unknown-event-type",
            Self::Chunked => "chunked",
            Self::SlowBody => "slow-body",
            Self::CloseAfterSending => "close-after-sending",
            Self::MixedConnections => "mixed-connections",
        }
    }

    /// How often it happens unless said otherwise: of calls, or of requests where it concerns
    /// the connection.
    pub const fn usual(self) -> f64 {
        match self {
            Self::MalformedRecord | Self::SlowBody | Self::CloseAfterSending => 0.01,
            _ => 0.05,
        }
    }
}

/// Which faults happen, and how often.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Faults(Vec<(Fault, f64)>);

impl Faults {
    /// None at all.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// All, as often as is usual.
    pub fn all() -> Self {
        Self(Fault::ALL.into_iter().map(|fault| (fault, fault.usual())).collect())
    }

    /// Sets how often one happens, 0 to 1.
    #[must_use]
    pub fn with(mut self, fault: Fault, probability: f64) -> Self {
        self.0.retain(|(known, _)| *known != fault);
        self.0.push((fault, probability.clamp(0.0, 1.0)));
        self
    }

    /// How often it happens, 0 to 1.
    pub fn probability(&self, fault: Fault) -> f64 {
        self.0.iter().find(|(known, _)| *known == fault).map_or(0.0, |(_, often)| *often)
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut faults = Self::none();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, often) = item.split_once('=').map_or((item, None), |(n, p)| (n, Some(p)));
            let often = match often {
                None => None,
                Some(often) => Some(
                    often
                        .parse::<f64>()
                        .ok()
                        .filter(|often| (0.0..=1.0).contains(often))
                        .ok_or("give a probability between 0 and 1, as in `chunked=0.1`")?,
                ),
            };
            match name {
                "none" => faults = Self::none(),
                "all" => {
                    for fault in Fault::ALL {
                        faults = faults.with(fault, often.unwrap_or(fault.usual()));
                    }
                }
                _ => {
                    let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name);
                    let fault = fault.ok_or_else(unknown)?;
                    faults = faults.with(fault, often.unwrap_or(fault.usual()));
                }
            }
        }
        Ok(faults)
    }
}

fn unknown() -> String {
    let names: Vec<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
    format!("choose `all`, `none`, or a list of {}", names.join(", "))
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (index, (fault, often)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}={often}", fault.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_faults_is_read_and_shown() {
        let faults: Faults = "all,chunked=0.5,slow-body=0".parse().unwrap();
        let is = |faults: &Faults, fault, often: f64| {
            assert!((faults.probability(fault) - often).abs() < 1e-9, "{fault:?}");
        };
        is(&faults, Fault::Chunked, 0.5);
        is(&faults, Fault::SlowBody, 0.0);
        is(&faults, Fault::Duplicate, Fault::Duplicate.usual());
        assert_eq!(faults.to_string().parse::<Faults>().unwrap(), faults);
        assert_eq!("none".parse::<Faults>().unwrap(), Faults::none());
        is(&"".parse().unwrap(), Fault::Chunked, 0.0);
    }

    #[test]
    fn what_is_no_fault_is_refused_with_the_list_of_names() {
        assert!("smoke".parse::<Faults>().unwrap_err().contains("close-after-sending"));
        assert!("chunked=2".parse::<Faults>().unwrap_err().contains("between 0 and 1"));
    }
}
