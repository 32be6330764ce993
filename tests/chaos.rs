//! Five minutes of `make chaos`: the system as processes, on three brokers and PostgreSQL, under
//! schedules of faults. `make chaos SEED=n` runs one of them again.

mod common;
#[path = "chaos/hang.rs"]
mod hang;

use std::path::Path;

use anyhow::{Result, ensure};
use tollgate_chaos::Runner;
use tollgate_chaos::schedule::TESTED;

/// I1, I3, I5, I7, I8, I9: whatever dies, stops, hangs or fills up, what was acknowledged is on the
/// topics, in the ledger and in the states, once and with the right values.
#[expect(clippy::print_stdout, reason = "the figures of each schedule")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_is_billed_twice_under_schedules_of_faults()
-> Result<()> {
    let runner = Runner {
        tollgate: env!("CARGO_BIN_EXE_tollgate").into(),
        dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos"),
    };
    for seed in TESTED {
        let outcome = runner.run(seed).await?;
        println!("{outcome}");
        ensure!(outcome.figures.failures.is_empty(), "{outcome}");
        // scripts/require.sh installs what they need.
        let clocks = outcome.figures.skipped.iter().find(|what| what.starts_with("clock"));
        ensure!(clocks.is_none(), "{outcome}");
    }
    Ok(())
}
