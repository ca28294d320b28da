//! Does a function do the work, or does it call another that is probed anyway?
//!
//! Comes in: a function and a way to tell what its calls lead to. Goes out: whether every way through it passes
//! such a call. In doubt it does the work itself. Never: decides what follows from that.

use iced_x86::{ConditionCode, FlowControl, Instruction, InstructionInfoFactory, OpAccess, Register};
use rustc_hash::FxHashSet;

use crate::probe::code::{Function, Target, Text, near_target, tests_for_null};

/// Functions that don't return: a way that leads there needs no call.
pub(super) const NO_RETURN: &[&str] = &[
    "abort",
    "__cxa_throw",
    "__cxa_rethrow",
    "__cxa_throw_bad_array_new_length",
    "_Unwind_Resume",
    "__stack_chk_fail",
    "_ZSt9terminatev",
    "_ZSt17__throw_bad_allocv",
    "_ZSt20__throw_system_errori",
];

/// How a function relates to those that are probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delegation {
    /// It does the work, at least on one way.
    None,
    /// It is nothing but a jump to one of them: with the caller's stack, and at once.
    Thunk,
    /// Every way through it calls one of them.
    Wrapper,
}

/// What a call or jump means to the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callee {
    /// It is probed.
    Probed,
    /// It never returns.
    NoReturn,
    /// Anything else.
    Other,
}

/// Answers the question for one function.
pub(super) fn delegation<'d>(
    text: &Text<'d>,
    function: &Function<'d>,
    callee: &dyn Fn(&Target<'d>) -> Callee,
) -> Delegation {
    if is_thunk(text, function, callee) {
        return Delegation::Thunk;
    }
    let mut walk = Walk { text, callee, seen: FxHashSet::default(), functions: 0, passed_a_call: false };
    if function.whole && walk.every_way_is_covered(function) && walk.passed_a_call {
        return Delegation::Wrapper;
    }
    Delegation::None
}

/// Whether the first branch is a jump to a probed function, with the stack pointer untouched until there.
fn is_thunk<'d>(text: &Text<'d>, function: &Function<'d>, callee: &dyn Fn(&Target<'d>) -> Callee) -> bool {
    let mut info = InstructionInfoFactory::new();
    for instruction in &function.instructions {
        match instruction.flow_control() {
            FlowControl::Next if !writes_stack_pointer(instruction, &mut info) => {}
            FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                return callee(&text.target(instruction)) == Callee::Probed;
            }
            _ => return false,
        }
    }
    false
}

fn writes_stack_pointer(instruction: &Instruction, info: &mut InstructionInfoFactory) -> bool {
    info.info(instruction).used_registers().iter().any(|used| {
        used.register().full_register() == Register::RSP
            && !matches!(used.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead)
    })
}

/// Functions that are followed from one: a cold part, a slow path.
const MAX_FUNCTIONS: usize = 8;

struct Walk<'a, 'd> {
    text: &'a Text<'d>,
    callee: &'a dyn Fn(&Target<'d>) -> Callee,
    /// Addresses of instructions that were looked at.
    seen: FxHashSet<u64>,
    functions: usize,
    passed_a_call: bool,
}

impl<'d> Walk<'_, 'd> {
    fn every_way_is_covered(&mut self, function: &Function<'d>) -> bool {
        self.functions += 1;
        self.from(function, function.start)
    }

    /// Follows all ways from an address of a function; false if one reaches a return.
    fn from(&mut self, function: &Function<'d>, start: u64) -> bool {
        let mut open = vec![start];
        while let Some(address) = open.pop() {
            let Some(first) = function.at(address) else { return false };
            let mut previous: Option<&Instruction> = None;
            for instruction in &function.instructions[first..] {
                if !self.seen.insert(instruction.ip()) {
                    break;
                }
                match instruction.flow_control() {
                    FlowControl::Next => {}
                    FlowControl::Call | FlowControl::IndirectCall => {
                        if self.ends_at(instruction) {
                            break;
                        }
                    }
                    FlowControl::ConditionalBranch => {
                        let entered_by_null = null_side(function, previous, instruction);
                        if entered_by_null != Some(Side::Taken)
                            && !self.jump(function, instruction, &mut open)
                        {
                            return false;
                        }
                        if entered_by_null == Some(Side::FallThrough) {
                            break;
                        }
                    }
                    FlowControl::UnconditionalBranch | FlowControl::IndirectBranch => {
                        if !self.jump(function, instruction, &mut open) {
                            return false;
                        }
                        break;
                    }
                    FlowControl::Exception => break,
                    _ => return false,
                }
                previous = Some(instruction);
            }
        }
        true
    }

    /// Whether a way is over at a call.
    fn ends_at(&mut self, call: &Instruction) -> bool {
        let callee = (self.callee)(&self.text.target(call));
        self.passed_a_call |= callee == Callee::Probed;
        callee != Callee::Other
    }

    /// Follows a jump, within the function or out of it.
    fn jump(&mut self, function: &Function<'d>, jump: &Instruction, open: &mut Vec<u64>) -> bool {
        if let Some(address) = near_target(jump).filter(|to| function.contains(*to)) {
            open.push(address);
            return true;
        }
        if self.ends_at(jump) {
            return true;
        }
        let Target::Local(address) = self.text.target(jump) else { return false };
        let elsewhere = self.text.function(address, 0).filter(|f| f.whole && self.functions < MAX_FUNCTIONS);
        elsewhere.is_some_and(|f| self.every_way_is_covered(&f))
    }
}

/// The side of a branch that only a null first argument takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Taken,
    FallThrough,
}

fn null_side(function: &Function<'_>, previous: Option<&Instruction>, branch: &Instruction) -> Option<Side> {
    // Only in the first block is the register certain to be the argument still: nothing jumps there.
    let tested = previous.and_then(tests_for_null) == Some(Register::RDI);
    let before = function.instructions.iter().take_while(|i| i.ip() < branch.ip());
    let first_block = before.clone().all(|i| i.flow_control() == FlowControl::Next)
        && !function.branches_into(function.start, branch.ip());
    match branch.condition_code() {
        ConditionCode::e if tested && first_block => Some(Side::Taken),
        ConditionCode::ne if tested && first_block => Some(Side::FallThrough),
        _ => None,
    }
}
