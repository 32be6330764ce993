//! Groups for reports (P 7).

use std::fmt;

use super::table;

/// Why a call ended as it did, coarse enough to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Hung up after connection.
    Success,
    /// The called party of the leg that failed: busy, off, no answer, no such number.
    CalledParty,
    /// Whoever asked for the call hung up, or could not be reached as a caller.
    RequestingSide,
    /// Routing, congestion or a time-out on the way.
    Routing,
    /// A rule forbids the call: frequency, blacklist, permission, arrears, binding.
    Policy,
    /// The platform itself.
    Platform,
    /// Announcement, text to speech or digit collection.
    Content,
    /// A limit that was asked for, such as the longest duration.
    Limits,
    /// The customer ended the call through the API.
    EndedByCustomer,
    /// No end was heard of; the state expired. Never read from a code.
    Expired,
    /// No code, or one that says nothing of this.
    Unknown,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 11] = [
        Self::Success,
        Self::CalledParty,
        Self::RequestingSide,
        Self::Routing,
        Self::Policy,
        Self::Platform,
        Self::Content,
        Self::Limits,
        Self::EndedByCustomer,
        Self::Expired,
        Self::Unknown,
    ];

    /// Its name in messages and reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::CalledParty => "called_party",
            Self::RequestingSide => "requesting_side",
            Self::Routing => "routing",
            Self::Policy => "policy",
            Self::Platform => "platform",
            Self::Content => "content",
            Self::Limits => "limits",
            Self::EndedByCustomer => "ended_by_customer",
            Self::Expired => "expired",
            Self::Unknown => "unknown",
        }
    }

    /// The group of a stateCode. It shares its numbers with the release points.
    pub fn of_state_code(code: i32) -> Self {
        Self::of_exact(code)
    }

    /// The group of a ulFailReason by itself; for 518, 519 and 520 the Q.850 cause says more, see
    /// [`outcome`](super::outcome).
    pub fn of_release_reason(code: i32) -> Self {
        if (400..=699).contains(&code) && !table::is_exact_release_reason(code) {
            return Self::of_sip_status(code);
        }
        Self::of_exact(code)
    }

    /// P 7's grouping; codes it does not name (most of PrivateNumber's) go by their meaning.
    #[expect(clippy::match_same_arms, reason = "codes of P 7 and codes by meaning stay apart")]
    fn of_exact(code: i32) -> Self {
        match code {
            0 => Self::Success,

            518..=520 | 8002..=8004 | 8100..=8105 => Self::CalledParty,
            550 | 551 | 540 | 7503 | 7504 | 8035 => Self::CalledParty,

            530 | 552 | 553 | 8009 | 8106..=8111 => Self::RequestingSide,
            539 | 7501 | 7502 | 7516 | 8033 => Self::RequestingSide,

            513..=517 => Self::Routing,
            521 | 7505 | 7506 | 7508 => Self::Routing,

            7001..=7005 | 7100..=7109 | 8018 => Self::Policy,
            528 | 529 | 7500 | 8012..=8014 | 8016 | 8019 => Self::Policy,
            8022..=8025 | 8042..=8051 | 8055..=8059 => Self::Policy,

            501..=512 | 522 | 542 | 2801..=2914 | 8000 | 8020 => Self::Platform,
            526 | 527 | 541 | 8011 | 8015 | 8040 | 8041 => Self::Platform,

            100 | 524 | 8005..=8008 => Self::Content,
            7507 => Self::Content,

            8010 => Self::Limits,
            8017 => Self::EndedByCustomer,
            1003 => Self::EndedByCustomer,
            _ => Self::Unknown,
        }
    }

    /// The group of a Q.850 cause. Normal causes (16, 31) and 0 say nothing about a failure.
    pub fn of_cause(cause: i32) -> Self {
        match cause {
            1 | 17..=23 | 27 | 28 => Self::CalledParty,
            2 | 3 | 5 | 25 | 34 | 38 | 41..=47 | 102 => Self::Routing,
            26 | 50 | 53 | 55 | 57 | 87 => Self::Policy,
            _ => Self::Unknown,
        }
    }

    /// The group of a SIP status.
    pub fn of_sip_status(status: i32) -> Self {
        match status {
            404 | 410 | 480 | 484..=486 | 600 | 603 | 604 | 607 => Self::CalledParty,
            487 => Self::RequestingSide,
            401 | 403 | 407 | 433 => Self::Policy,
            408 | 482 | 483 | 500..=599 => Self::Routing,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_are_those_of_the_protocol_page() {
        let page: [(Group, &[std::ops::RangeInclusive<i32>]); 9] = [
            (Group::Success, &[0..=0]),
            (Group::CalledParty, &[8002..=8004, 8100..=8105, 518..=520]),
            (Group::RequestingSide, &[8009..=8009, 8106..=8111, 530..=530, 552..=553]),
            (Group::Routing, &[513..=517]),
            (Group::Policy, &[7001..=7005, 7100..=7109, 8018..=8018]),
            (Group::Platform, &[522..=522, 8000..=8000, 8020..=8020, 2801..=2914, 501..=510]),
            (Group::Content, &[8005..=8008, 100..=100, 524..=524]),
            (Group::Limits, &[8010..=8010]),
            (Group::EndedByCustomer, &[8017..=8017]),
        ];
        for (group, ranges) in page {
            for code in ranges.iter().cloned().flatten() {
                assert_eq!(Group::of_release_reason(code), group, "{code}");
                assert_eq!(Group::of_state_code(code), group, "{code}");
            }
        }
        for cause in [17, 18, 19, 20, 21] {
            assert_eq!(Group::of_cause(cause), Group::CalledParty, "{cause}");
        }
    }

    #[test]
    fn a_sip_status_as_release_point_is_grouped_as_one() {
        assert_eq!(Group::of_release_reason(486), Group::CalledParty);
        assert_eq!(Group::of_release_reason(603), Group::CalledParty);
        assert_eq!(Group::of_release_reason(403), Group::Policy);
        assert_eq!(Group::of_release_reason(580), Group::Routing);
    }

    #[test]
    fn a_state_code_is_never_read_as_a_sip_status() {
        assert_eq!(Group::of_state_code(486), Group::Unknown);
    }

    #[test]
    fn unknown_and_normal_codes_belong_to_no_failure() {
        assert_eq!(Group::of_release_reason(123_456), Group::Unknown);
        assert_eq!(Group::of_release_reason(-1), Group::Unknown);
        for cause in [0, 16, 31, -5] {
            assert_eq!(Group::of_cause(cause), Group::Unknown);
        }
    }
}
