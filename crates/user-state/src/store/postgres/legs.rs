//! The legs of numbers: what a state is derived from.
//!
//! In all statements `$1` are numbers, `$2` their instants, `$3` whether there may be open legs, `$4`
//! how many of these are read of each number.
//! What is over is looked for along the index: first those that ended at the last instant, then
//! among them.

/// Open legs by everything that is known.
pub const COMPUTE: &str = "
    SELECT wanted.number_key, found.*
    FROM unnest($1::uuid[], $2::bigint[], $3::boolean[]) AS wanted (number_key, as_of, busy)
    CROSS JOIN LATERAL (
        SELECT session_key, session_id, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
               state_code, release_reason, cause, sip_status
        FROM state_leg AS leg
        WHERE busy AND leg.number_key = wanted.number_key AND NOT ended AND until_ms > as_of
        ORDER BY until_ms DESC LIMIT $4
    ) AS found";

/// The same, and the last that is over.
pub const SHOW: &str = "
    SELECT wanted.number_key, found.*
    FROM unnest($1::uuid[], $2::bigint[], $3::boolean[]) AS wanted (number_key, as_of, busy)
    CROSS JOIN LATERAL (
        (SELECT session_key, session_id, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                state_code, release_reason, cause, sip_status
         FROM state_leg AS leg
         WHERE busy AND leg.number_key = wanted.number_key AND NOT ended AND until_ms > as_of
         ORDER BY until_ms DESC LIMIT $4)
        UNION ALL
        (SELECT * FROM
             (SELECT session_key, session_id, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                     state_code, release_reason, cause, sip_status
              FROM state_leg AS leg
              WHERE leg.number_key = wanted.number_key AND (ended OR until_ms <= as_of)
              ORDER BY until_ms DESC FETCH FIRST ROW WITH TIES) AS last
         ORDER BY session_key DESC, side DESC LIMIT 1)
    ) AS found";

/// The same, as they stood at the instants.
pub const PAST: &str = "
    SELECT wanted.number_key, found.*
    FROM unnest($1::uuid[], $2::bigint[], $3::boolean[]) AS wanted (number_key, as_of, busy)
    CROSS JOIN LATERAL (
        (SELECT session_key, session_id, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                state_code, release_reason, cause, sip_status
         FROM state_leg AS leg
         WHERE busy AND leg.number_key = wanted.number_key AND until_ms > as_of
           AND coalesce(least(started_ms, alerting_ms, answered_ms), until_ms) <= as_of
         ORDER BY until_ms LIMIT $4)
        UNION ALL
        (SELECT * FROM
             (SELECT session_key, session_id, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                     state_code, release_reason, cause, sip_status
              FROM state_leg AS leg
              WHERE leg.number_key = wanted.number_key AND until_ms <= as_of
              ORDER BY until_ms DESC FETCH FIRST ROW WITH TIES) AS last
         ORDER BY session_key DESC, side DESC LIMIT 1)
    ) AS found";
