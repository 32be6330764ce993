//! The legs of numbers: what a state is derived from.

/// Open legs by everything that is known, and the last that is over; `$1` numbers, `$2` their
/// instants, `$3` how many. Session ids, if they are wanted, are in another table.
macro_rules! legs_known {
    ($session_id:literal, $join:literal) => {
        concat!(
            "SELECT wanted.number_key, found.*, ",
            $session_id,
            " AS session_id
             FROM unnest($1::bytea[], $2::bigint[]) AS wanted (number_key, as_of)
             CROSS JOIN LATERAL (
                 (SELECT session_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                         state_code, release_reason, cause, sip_status
                  FROM state_leg AS leg
                  WHERE leg.number_key = wanted.number_key AND NOT ended AND until_ms > as_of
                  ORDER BY until_ms DESC LIMIT $3)
                 UNION ALL
                 (SELECT session_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                         state_code, release_reason, cause, sip_status
                  FROM state_leg AS leg
                  WHERE leg.number_key = wanted.number_key AND (ended OR until_ms <= as_of)
                  ORDER BY until_ms DESC, session_key DESC, side DESC LIMIT 1)
             ) AS found ",
            $join
        )
    };
}

/// To compute with: without session ids.
pub const COMPUTE: &str = legs_known!("''::bytea", "");
/// To show.
pub const SHOW: &str =
    legs_known!("call.session_id", "JOIN state_call AS call USING (session_key)");

/// The same, as they stood at the instants.
pub const PAST: &str = "
    SELECT wanted.number_key, found.*, call.session_id
    FROM unnest($1::bytea[], $2::bigint[]) AS wanted (number_key, as_of)
    CROSS JOIN LATERAL (
        (SELECT session_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                state_code, release_reason, cause, sip_status
         FROM state_leg AS leg
         WHERE leg.number_key = wanted.number_key AND until_ms > as_of
           AND coalesce(least(started_ms, alerting_ms, answered_ms), until_ms) <= as_of
         ORDER BY until_ms LIMIT $3)
        UNION ALL
        (SELECT session_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                state_code, release_reason, cause, sip_status
         FROM state_leg AS leg
         WHERE leg.number_key = wanted.number_key AND until_ms <= as_of
         ORDER BY until_ms DESC, session_key DESC, side DESC LIMIT 1)
    ) AS found
    JOIN state_call AS call USING (session_key)";
