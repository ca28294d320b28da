//! Where in a function a probe costs least and still sees what it needs.
//!
//! Comes in: a function's code and which arguments a probe reads. Goes out: the first instruction that the kernel
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// The instruction.
    pub instruction: Instruction,
    /// What the kernel does with it.
    pub treatment: Treatment,
    /// Which of [`Demand::places`] the arguments are in there.
    pub place: usize,
    /// [`Site::depth`].
    pub depth: u32,
}

/// Picks a site; `None` if the kernel would refuse all.
pub fn pick(function: &Function<'_>, demand: &Demand<'_>) -> Option<Picked> {
    let mut info = InstructionInfoFactory::new();
    let mut state = State::at_entry();
    let mut best: Option<Picked> = None;
    let mut previous: Option<&Instruction> = None;
    let mut null_left_at: Option<u32> = None;
    for instruction in &function.instructions {
        let address = instruction.ip();
        // Past the entry, a place that the function comes back to would be hit twice; if it can't be read as a
        // whole, that can't be known.
        if address != function.start && (!function.whole || function.branches_into(function.start, address)) {
            break;
        }
        let depth = if demand.stack == Stack::AtReturnAddress { Some(0) } else { null_left_at };
        if depth.is_some_and(|depth| state.depth != depth) {
            break;
        }
        let Some(place) = state.find(demand) else { break };
        let treatment = treatment(instruction, function.bytes_of(instruction));
        let picked = Picked { instruction: *instruction, treatment, place, depth: state.depth };
        if treatment == Treatment::Emulated {
            best = Some(picked);
            let first = |register| state.is(register, demand.places[0][0]);
            if null_left_at.is_some()
                || !demand.null_is_nothing
                || !leaves_if_null(previous, instruction, first)
            {
                break;
            }
            // Only calls with something to free come past here: the next emulated instruction is better still.
            null_left_at = Some(state.depth);
            continue;
        }
        if best.is_none() && treatment == Treatment::Stepped {
            best = Some(picked);
        }
        if !state.step(instruction, &mut info) {
            break;
        }
        previous = Some(instruction);
    }
    best
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

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x1000;
    const FREE: Demand<'_> = Demand {
        places: &[&[Register::RDI], &[Register::RSI]],
        stack: Stack::MayMove,
        null_is_nothing: true,
    };
    const MALLOC: Demand<'_> = Demand {
        places: &[&[Register::RDI], &[Register::RSI]],
        stack: Stack::AtReturnAddress,
        null_is_nothing: false,
    };
    const CALLOC: Demand<'_> = Demand {
        places: &[&[Register::RDI, Register::RSI]],
        stack: Stack::AtReturnAddress,
        null_is_nothing: false,
    };

    /// Offset of the site from the entry, whether it is emulated, which place and depth.
    fn picked(bytes: &[u8], demand: &Demand<'_>) -> Option<(u64, bool, usize, u32)> {
        let picked = pick(&Function::decode(START, bytes, true), demand)?;
        Some((
            picked.instruction.ip() - START,
            picked.treatment == Treatment::Emulated,
            picked.place,
            picked.depth,
        ))
    }

    #[test]
    fn a_push_at_the_entry() {
        // push r12; ret
        assert_eq!(picked(&[0x41, 0x54, 0xc3], &MALLOC), Some((0, true, 0, 0)));
    }

    #[test]
    fn past_endbr64() {
        // endbr64; push rbx; ret
        assert_eq!(picked(&[0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0xc3], &MALLOC), Some((4, true, 0, 0)));
    }

    #[test]
    fn not_past_a_written_argument() {
        // xor edi, edi; push rbx; ret
        let code = [0x31, 0xff, 0x53, 0xc3];
        assert_eq!(picked(&code, &MALLOC), Some((0, false, 0, 0)));
        // ... which does not matter to who doesn't read it.
        let new = Demand { places: &[&[]], ..MALLOC };
        assert_eq!(picked(&code, &new), Some((2, true, 0, 0)));
        // mov dil, 1: a part of it counts. mov eax, 1 does not.
        assert_eq!(picked(&[0x40, 0xb7, 1, 0x53, 0xc3], &MALLOC), Some((0, false, 0, 0)));
        assert_eq!(picked(&[0xb8, 1, 0, 0, 0, 0x53, 0xc3], &MALLOC), Some((5, true, 0, 0)));
    }

    #[test]
    fn an_argument_is_followed_to_another_register() {
        // mov rsi, rdi; mov rdi, rax; ja +0; ret
        assert_eq!(
            picked(&[0x48, 0x89, 0xfe, 0x48, 0x89, 0xc7, 0x77, 0, 0xc3], &MALLOC),
            Some((6, true, 1, 0))
        );
        // mov esi, edi cuts it off.
        assert_eq!(picked(&[0x89, 0xfe, 0x48, 0x89, 0xc7, 0x77, 0, 0xc3], &MALLOC), Some((0, false, 0, 0)));
        // xchg rdi, rsi is beyond it.
        assert_eq!(picked(&[0x48, 0x87, 0xf7, 0x53, 0xc3], &MALLOC), Some((0, false, 0, 0)));
    }

    #[test]
    fn all_arguments_must_be_there() {
        // mov rax, rdi; mul rsi; jo +0; ret: glibc 2.43's calloc
        assert_eq!(
            picked(&[0x48, 0x89, 0xf8, 0x48, 0xf7, 0xe6, 0x70, 0, 0xc3], &CALLOC),
            Some((6, true, 0, 0))
        );
        // mov esi, 1; push rbx; ret
        assert_eq!(picked(&[0xbe, 1, 0, 0, 0, 0x53, 0xc3], &CALLOC), Some((0, false, 0, 0)));
    }

    #[test]
    fn a_return_probe_needs_the_stack_as_it_was() {
        // sub rsp, 0x18; jne +0; ret: stepped for malloc; free needs no return address.
        let code = [0x48, 0x83, 0xec, 0x18, 0x75, 0, 0xc3];
        assert_eq!(picked(&code, &MALLOC), Some((0, false, 0, 0)));
        assert_eq!(picked(&code, &FREE), Some((4, true, 0, 0x18)));
        // and rsp, -16: nobody knows by how much.
        assert_eq!(picked(&[0x48, 0x83, 0xe4, 0xf0, 0x75, 0, 0xc3], &FREE), Some((0, false, 0, 0)));
    }

    #[test]
    fn free_of_null_is_left_behind() {
        // test rdi, rdi; je end; push rbp; end: ret
        let code = [0x48, 0x85, 0xff, 0x74, 1, 0x55, 0xc3];
        assert_eq!(picked(&code, &FREE), Some((5, true, 0, 0)));
        // malloc(0) is an allocation.
        assert_eq!(picked(&code, &MALLOC), Some((3, true, 0, 0)));
        // test rdi, rdi; je end; xor edi, edi; push rbp; end: ret
        assert_eq!(
            picked(&[0x48, 0x85, 0xff, 0x74, 3, 0x31, 0xff, 0x55, 0xc3], &FREE),
            Some((3, true, 0, 0))
        );
        // test rsi, rsi is not about the block; nor is test edi, edi about all of it.
        assert_eq!(picked(&[0x48, 0x85, 0xf6, 0x74, 1, 0x55, 0xc3], &FREE), Some((3, true, 0, 0)));
        assert_eq!(picked(&[0x85, 0xff, 0x74, 1, 0x55, 0xc3], &FREE), Some((2, true, 0, 0)));
        // test rdi, rdi; jne: the fall-through is null's.
        assert_eq!(picked(&[0x48, 0x85, 0xff, 0x75, 1, 0xc3, 0x55, 0xc3], &FREE), Some((3, true, 0, 0)));
        // mov rcx, rdi; test rcx, rcx; je end; push rbp; end: ret
        assert_eq!(
            picked(&[0x48, 0x89, 0xf9, 0x48, 0x85, 0xc9, 0x74, 1, 0x55, 0xc3], &FREE),
            Some((8, true, 0, 0))
        );
    }

    #[test]
    fn a_loop_back_into_the_prologue_forbids_what_follows() {
        // mov rax, rdi; top: push rbx; pop rbx; jmp top
        let back = [0x48, 0x89, 0xf8, 0x53, 0x5b, 0xeb, 0xfc];
        assert_eq!(picked(&back, &MALLOC), Some((0, false, 0, 0)));
        // mov rax, rdi; push rbx; top: pop rbx; jmp top
        assert_eq!(picked(&[0x48, 0x89, 0xf8, 0x53, 0x5b, 0xeb, 0xfd], &MALLOC), Some((3, true, 0, 0)));
        // test rdi, rdi; je out; push rbp; ret; out: jmp to the push: null comes past it after all.
        let code = [0x48, 0x85, 0xff, 0x74, 2, 0x55, 0xc3, 0xeb, 0xfc];
        assert_eq!(picked(&code, &FREE), Some((3, true, 0, 0)));
    }

    #[test]
    fn nothing_past_the_entry_of_a_function_without_an_end() {
        let code = [0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0xc3];
        let picked = pick(&Function::decode(START, &code, false), &MALLOC).unwrap();
        assert_eq!((picked.instruction.ip(), picked.treatment), (START, Treatment::Stepped));
    }

    #[test]
    fn what_the_kernel_refuses_is_passed_over() {
        // lock inc [rdi]; mov eax, 1; ret
        let code = [0xf0, 0xff, 0x07, 0xb8, 1, 0, 0, 0, 0xc3];
        assert_eq!(picked(&code, &MALLOC), Some((3, false, 0, 0)));
        // vzeroupper; ret is stepped at the ret; a lone hlt can't be probed at all.
        assert_eq!(picked(&[0xc5, 0xf8, 0x77, 0xc3], &MALLOC), Some((3, false, 0, 0)));
        assert_eq!(picked(&[0xf4], &MALLOC), None);
        assert_eq!(picked(&[], &MALLOC), None);
    }
}
