//! What is lost when traced threads leave the agent no CPU of its own.
//!
//! Comes in: two traced threads that allocate flat out. Goes out: the share of records that were lost, and whether
//! recorded and lost ones together are all that the threads did. Never: hides a gap between those two.

use anyhow::Result;

use super::{Bench, agent, median};
use crate::command::step;

const THREADS: u32 = 2;
const MILLISECONDS: u32 = 2000;

pub fn run(bench: &Bench) -> Result<()> {
    step("bench loss");
    let (mut lost, mut seen, mut accounted) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let mut load = bench.load()?;
        let agent = bench.trace(&load)?;
        let calls = 2 * load.flood(THREADS, MILLISECONDS)?;
        agent::wait_until_drained();
        let report = agent.finish()?;
        let records = report.events + report.lost;
        lost.push(100.0 * report.lost as f64 / records.max(1) as f64);
        seen.push(report.events as f64);
        accounted.push(records as f64 / calls.max(1) as f64);
    }
    println!(
        "loss    {THREADS} threads on {} CPUs: {:.3} % lost of {:.2} M; recorded and lost are {:.4} of the calls made",
        std::thread::available_parallelism()?,
        median(lost),
        median(seen) / 1e6,
        median(accounted)
    );
    Ok(())
}
