//! Memory that the agent needs for outstanding blocks.
//!
//! Comes in: a traced process that allocates blocks of one call site and keeps them. Goes out: the growth of the
//! agent's resident memory a million blocks, against that of the program. Never: counts maps in the kernel.

use anyhow::{Result, bail};

use super::{Bench, agent, median};
use crate::command::step;

const BLOCKS: u32 = 2_000_000;
const SIZE: u32 = 32;

pub fn run(bench: &Bench) -> Result<()> {
    step("bench memory");
    let (mut agents, mut programs) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let mut load = bench.load()?;
        let agent = bench.trace(&load)?;
        agent::wait_until_drained();
        let before = (agent.resident()?, agent::resident(load.pid())?);
        load.hold(BLOCKS, SIZE)?;
        agent::wait_until_drained();
        agents.push(agent.resident()?.saturating_sub(before.0) as f64 / f64::from(BLOCKS));
        programs.push(agent::resident(load.pid())?.saturating_sub(before.1) as f64 / f64::from(BLOCKS));
        let report = agent.finish()?;
        if report.outstanding + report.lost < u64::from(BLOCKS) {
            bail!("leaktrace knows {} of {BLOCKS} blocks and names {} lost", report.outstanding, report.lost);
        }
    }
    let (agent, program) = (median(agents), median(programs));
    println!(
        "memory  {agent:.0} MB of agent for each million blocks of {SIZE} bytes; the program {program:.0} MB, ratio {:.2}",
        agent / program
    );
    Ok(())
}
