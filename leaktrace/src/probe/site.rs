//! Where in a function a probe costs least and still sees what it needs.
//!
//! Comes in: a function and which arguments a probe reads. Goes out: the first instruction that the kernel
//! emulates, that every call passes exactly once, with the arguments and, where asked for, the stack pointer
//! still as at the entry; the entry itself if there is none. Never: attaches anything.

use iced_x86::{
    ConditionCode, FlowControl, Formatter, Instruction, InstructionInfoFactory, IntelFormatter, Mnemonic,
    OpAccess, OpKind, Register,
};

use super::code::{Function, tests_for_null};
use super::elf::Image;
use super::emulation::{Treatment, treatment};

/// A place for a breakpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Offset in the file: what the kernel wants.
    pub offset: u64,
    /// Virtual address, as the file was linked.
    pub address: u64,
    /// The instruction there, for a person.
    pub instruction: String,
    /// Whether the kernel emulates it; otherwise each hit costs a single step.
    pub emulated: bool,
    /// Bytes by which the stack pointer is below where it was at the entry: 0 unless [`Stack::MayMove`].
    pub depth: u32,
}

/// What a probe needs of the stack pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// It must point to the return address: the caller is read, or a return probe put there.
    AtReturnAddress,
    /// It doesn't matter.
    MayMove,
}

/// What a probe needs.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// Registers that the arguments are in at the entry, in the order in which the probe reads them; then other
    /// registers that it could read the same arguments from just as well.
    pub places: &'a [&'a [Register]],
    /// The stack pointer.
    pub stack: Stack,
    /// Whether calls with a null first argument need not be seen.
    pub null_is_nothing: bool,
}

/// A site for a demand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    /// Where.
    pub site: Site,
    /// Which of [`Demand::places`] the arguments are in there.
    pub place: usize,
}

/// Picks a site; `None` if the kernel would refuse all.
pub fn pick(image: &Image<'_>, function: &Function<'_>, demand: &Demand<'_>) -> Option<Picked> {
    let mut info = InstructionInfoFactory::new();
    let mut state = State::at_entry();
    let mut best: Option<Candidate> = None;
    let mut previous: Option<&Instruction> = None;
    for instruction in &function.instructions {
        let address = instruction.ip();
        // Past the entry, a place that the function comes back to would be hit twice; if it can't be read as a
        // whole, that can't be known.
        if address != function.start && (!function.whole || function.branches_into(function.start, address)) {
            break;
        }
        if demand.stack == Stack::AtReturnAddress && state.depth != 0 {
            break;
        }
        let Some(place) = state.find(demand) else { break };
        let treatment = treatment(instruction, function.bytes_of(instruction));
        if better(treatment, best.as_ref()) {
            best = Some(Candidate { instruction: *instruction, treatment, place, depth: state.depth });
        }
        if treatment == Treatment::Emulated {
            let null_leaves = demand.null_is_nothing
                && leaves_if_null(previous, instruction, |r| state.is(r, demand.places[0][0]));
            if !null_leaves {
                break;
            }
            // Only calls with something to free come past here; the next emulated instruction is better.
            if let Some(later) = later_site(function, demand, &state, instruction, &mut info) {
                best = Some(later);
            }
            break;
        }
        if !state.step(instruction, &mut info) {
            break;
        }
        previous = Some(instruction);
    }
    best.and_then(|candidate| candidate.into_picked(image))
}

/// The next emulated instruction after a branch that null took, with the stack pointer where it is.
fn later_site(
    function: &Function<'_>,
    demand: &Demand<'_>,
    at_branch: &State,
    branch: &Instruction,
    info: &mut InstructionInfoFactory,
) -> Option<Candidate> {
    let mut state = at_branch.clone();
    let from = function.at(branch.next_ip())?;
    for instruction in &function.instructions[from..] {
        if function.branches_into(function.start, instruction.ip()) || state.depth != at_branch.depth {
            return None;
        }
        let place = state.find(demand)?;
        let treatment = treatment(instruction, function.bytes_of(instruction));
        if treatment == Treatment::Emulated {
            return Some(Candidate { instruction: *instruction, treatment, place, depth: state.depth });
        }
        if !state.step(instruction, info) {
            return None;
        }
    }
    None
}

/// Whether a candidate beats the one so far: the first that can be probed, then the first emulated.
fn better(treatment: Treatment, best: Option<&Candidate>) -> bool {
    match (treatment, best.map(|b| b.treatment)) {
        (Treatment::Refused, _) => false,
        (_, None) => true,
        (found, Some(Treatment::Stepped)) => found == Treatment::Emulated,
        (_, Some(_)) => false,
    }
}

/// Whether `previous; branch` is `test r, r; je away` with `r` the register that `is_first` accepts.
fn leaves_if_null(
    previous: Option<&Instruction>,
    branch: &Instruction,
    is_first: impl Fn(Register) -> bool,
) -> bool {
    branch.condition_code() == ConditionCode::e
        && branch.is_jcc_short_or_near()
        && previous.and_then(tests_for_null).is_some_and(is_first)
}

struct Candidate {
    instruction: Instruction,
    treatment: Treatment,
    place: usize,
    depth: u32,
}

impl Candidate {
    fn into_picked(self, image: &Image<'_>) -> Option<Picked> {
        let site = Site::new(image, &self.instruction, self.treatment, self.depth)?;
        Some(Picked { site, place: self.place })
    }
}

impl Site {
    /// The site at an instruction; `None` if it is not in the file.
    pub fn new(image: &Image<'_>, at: &Instruction, treatment: Treatment, depth: u32) -> Option<Self> {
        Some(Self {
            offset: image.offset(at.ip())?,
            address: at.ip(),
            instruction: text(at),
            emulated: treatment == Treatment::Emulated,
            depth,
        })
    }
}

fn text(instruction: &Instruction) -> String {
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    options.set_rip_relative_addresses(true);
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    text
}

/// Which register holds what some register held at the entry, and where the stack pointer is.
#[derive(Clone)]
struct State {
    holds: [Option<Register>; 16],
    depth: u32,
}

impl State {
    fn at_entry() -> Self {
        Self { holds: std::array::from_fn(|n| Some(Register::RAX + n as u32)), depth: 0 }
    }

    fn is(&self, register: Register, at_entry: Register) -> bool {
        self.holds[register.number()] == Some(at_entry)
    }

    /// Which of the demand's places has the arguments now.
    fn find(&self, demand: &Demand<'_>) -> Option<usize> {
        let at_entry = demand.places[0];
        demand.places.iter().position(|now| now.iter().zip(at_entry).all(|(now, then)| self.is(*now, *then)))
    }

    /// Follows an instruction; `false` if the next one is not certain to run after it.
    fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) -> bool {
        if instruction.flow_control() != FlowControl::Next {
            return false;
        }
        if let Some((to, from)) = copies(instruction) {
            self.holds[to.number()] = self.holds[from.number()];
            return to != Register::RSP;
        }
        let mut stack_moved = false;
        for used in info.info(instruction).used_registers() {
            let written = !matches!(used.access(), OpAccess::None | OpAccess::Read | OpAccess::CondRead);
            let register = used.register().full_register();
            if written && register == Register::RSP {
                stack_moved = true;
            } else if written && register.is_gpr64() {
                self.holds[register.number()] = None;
            }
        }
        match (stack_moved, grows_stack_by(instruction)) {
            (false, _) => true,
            (true, Some(bytes)) => {
                self.depth += bytes;
                true
            }
            (true, None) => false,
        }
    }
}

/// `mov to, from` between 64-bit registers.
fn copies(instruction: &Instruction) -> Option<(Register, Register)> {
    let registers = instruction.op0_kind() == OpKind::Register && instruction.op1_kind() == OpKind::Register;
    let (to, from) = (instruction.op0_register(), instruction.op1_register());
    (instruction.mnemonic() == Mnemonic::Mov && registers && to.is_gpr64() && from.is_gpr64())
        .then_some((to, from))
}

/// Bytes by which `push` or `sub rsp, n` lowers the stack pointer.
fn grows_stack_by(instruction: &Instruction) -> Option<u32> {
    match instruction.mnemonic() {
        Mnemonic::Push => u32::try_from(-instruction.stack_pointer_increment()).ok(),
        Mnemonic::Sub if instruction.op0_register() == Register::RSP => {
            instruction.try_immediate(1).ok().and_then(|bytes| u32::try_from(bytes).ok())
        }
        _ => None,
    }
}
