//! Every `ret` through which a function that may throw returns.
//!
//! Comes in: a function. Goes out: its return instructions, and those of the functions it leaves through
//! (their stack pointer is the same, so their `ret` is its own). Never: those of functions that it calls.

use iced_x86::{FlowControl, Instruction};
use rustc_hash::FxHashSet;

use crate::probe::code::{Function, Target, Text, near_target};

/// Functions that are followed from one.
const MAX_FUNCTIONS: usize = 32;

/// Where a function returns.
#[derive(Debug, Default)]
pub(super) struct Returns {
    /// The `ret` instructions.
    pub sites: Vec<Instruction>,
    /// A way out that can't be followed, if there is one.
    pub unseen: Option<String>,
}

/// Finds the returns of `function`. `never_returns` says where a jump is not a way out.
pub(super) fn returns<'d>(
    text: &Text<'d>,
    function: &Function<'d>,
    never_returns: &dyn Fn(&Target<'d>) -> bool,
) -> Returns {
    let mut found = Returns::default();
    let mut seen = FxHashSet::from_iter([function.start]);
    let mut open = collect(text, function, never_returns, &mut found);
    while let Some(address) = open.pop() {
        if !seen.insert(address) {
            continue;
        }
        match text.function(address, 0).filter(|f| f.whole && seen.len() <= MAX_FUNCTIONS) {
            Some(next) => open.extend(collect(text, &next, never_returns, &mut found)),
            None => found.unseen = Some(format!("a function of unknown length at {address:#x}")),
        }
    }
    found.sites.sort_unstable_by_key(Instruction::ip);
    found
}

/// Adds the returns of one function; gives back where it jumps out to.
fn collect<'d>(
    text: &Text<'d>,
    function: &Function<'d>,
    never_returns: &dyn Fn(&Target<'d>) -> bool,
    found: &mut Returns,
) -> Vec<u64> {
    let mut left_to = Vec::new();
    for instruction in &function.instructions {
        match instruction.flow_control() {
            FlowControl::Return => found.sites.push(*instruction),
            FlowControl::UnconditionalBranch
            | FlowControl::ConditionalBranch
            | FlowControl::IndirectBranch => {
                if near_target(instruction).is_some_and(|to| function.contains(to)) {
                    continue;
                }
                let target = text.target(instruction);
                if never_returns(&target) {
                    continue;
                }
                match (target.address(), target) {
                    (Some(address), _) => left_to.push(address),
                    (None, Target::Import(import)) => {
                        let name = String::from_utf8_lossy(import.name);
                        found.unseen = Some(format!("{name} of another file"));
                    }
                    // A jump table, or a call of a handler when memory ran out.
                    (None, _) => {}
                }
            }
            _ => {}
        }
    }
    left_to
}
