//! The legs of numbers: what a state is derived from.
//!
//! In all statements `$1` are numbers, `$2` their instants, `$3` how many open legs are read of each.
//! What is over is looked for along the index: first those that ended at the last instant, then
//! among them.

/// Open legs by everything that is known. Session ids are in another table.
pub const COMPUTE: &str = "
    SELECT wanted.number_key, found.*, ''::bytea AS session_id
    FROM unnest($1::uuid[], $2::bigint[]) AS wanted (number_key, as_of)
    CROSS JOIN LATERAL (
        SELECT session_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
               state_code, release_reason, cause, sip_status
        FROM state_leg AS leg
        WHERE leg.number_key = wanted.number_key AND NOT ended AND until_ms > as_of
        ORDER BY until_ms DESC LIMIT $3
    ) AS found";

/// The same, and the last that is over.
pub const SHOW: &str = "
    SELECT wanted.number_key, found.*, call.session_id
    FROM unnest($1::uuid[], $2::bigint[]) AS wanted (number_key, as_of)
    CROSS JOIN LATERAL (
        (SELECT call_serial, session_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                state_code, release_reason, cause, sip_status
         FROM state_leg AS leg
         WHERE leg.number_key = wanted.number_key AND NOT ended AND until_ms > as_of
         ORDER BY until_ms DESC LIMIT $3)
        UNION ALL
        (SELECT * FROM
             (SELECT call_serial, session_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                     state_code, release_reason, cause, sip_status
              FROM state_leg AS leg
              WHERE leg.number_key = wanted.number_key AND (ended OR until_ms <= as_of)
              ORDER BY until_ms DESC FETCH FIRST ROW WITH TIES) AS last
         ORDER BY session_key DESC, side DESC LIMIT 1)
    ) AS found
    JOIN state_call AS call USING (call_serial)";

/// The same, as they stood at the instants.
pub const PAST: &str = "
    SELECT wanted.number_key, found.*, call.session_id
    FROM unnest($1::uuid[], $2::bigint[]) AS wanted (number_key, as_of)
    CROSS JOIN LATERAL (
        (SELECT call_serial, session_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                state_code, release_reason, cause, sip_status
         FROM state_leg AS leg
         WHERE leg.number_key = wanted.number_key AND until_ms > as_of
           AND coalesce(least(started_ms, alerting_ms, answered_ms), until_ms) <= as_of
         ORDER BY until_ms LIMIT $3)
        UNION ALL
        (SELECT * FROM
             (SELECT call_serial, session_key, side, started_ms, alerting_ms, answered_ms, ended, until_ms,
                     state_code, release_reason, cause, sip_status
              FROM state_leg AS leg
              WHERE leg.number_key = wanted.number_key AND until_ms <= as_of
              ORDER BY until_ms DESC FETCH FIRST ROW WITH TIES) AS last
         ORDER BY session_key DESC, side DESC LIMIT 1)
    ) AS found
    JOIN state_call AS call USING (call_serial)";
