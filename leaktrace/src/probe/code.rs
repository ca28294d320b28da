//! Functions as instructions, and where their calls and jumps lead.
//!
//! Comes in: an [`Image`] and addresses. Goes out: decoded functions, resolved targets. The end of a function
//! is where its symbol or, in a stripped file, its unwind table says. Never: guesses an end, never executes
//! anything.

use std::cell::OnceCell;

use gimli::{BaseAddresses, CieOrFde, EhFrame, EhFrameHdr, EndianSlice, ParsedEhFrameHdr, UnwindSection};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use rustc_hash::FxHashMap;

use super::elf::{ElfError, Image, Import};

/// The longest function that is looked at as a whole.
const MAX_FUNCTION: u64 = 64 * 1024;

/// Bytes that are decoded when nothing says where a function ends.
const PROLOGUE: u64 = 128;

type Reader<'d> = EndianSlice<'d, gimli::LittleEndian>;

/// A decoded function.
#[derive(Debug)]
pub struct Function<'d> {
    /// Virtual address of the first instruction.
    pub start: u64,
    /// Its code.
    pub bytes: &'d [u8],
    /// Its instructions in address order, up to the first that makes no sense.
    pub instructions: Vec<Instruction>,
    /// Whether that is all of it; otherwise it may have any number of further branches.
    pub whole: bool,
}

impl<'d> Function<'d> {
    /// Decodes `bytes`, which start at the virtual address `start`. `whole` says that they are all of the
    /// function and nothing else.
    pub fn decode(start: u64, bytes: &'d [u8], whole: bool) -> Self {
        let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
        let instructions: Vec<_> = decoder.iter().take_while(|i| !i.is_invalid()).collect();
        let decoded = instructions.last().map_or(start, Instruction::next_ip);
        Self { start, bytes, instructions, whole: whole && decoded == start + bytes.len() as u64 }
    }

    /// Whether an address is inside.
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.start + self.bytes.len() as u64).contains(&address)
    }

    /// Index of the instruction at an address.
    pub fn at(&self, address: u64) -> Option<usize> {
        self.instructions.binary_search_by_key(&address, Instruction::ip).ok()
    }

    /// The bytes of one of its instructions.
    pub fn bytes_of(&self, instruction: &Instruction) -> &'d [u8] {
        let at = (instruction.ip() - self.start) as usize;
        &self.bytes[at..at + instruction.len()]
    }

    /// Whether one of its own branches leads to an address in `(after, up_to]`.
    pub fn branches_into(&self, after: u64, up_to: u64) -> bool {
        self.instructions.iter().filter_map(near_target).any(|to| after < to && to <= up_to)
    }
}

/// Where a call or jump leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'d> {
    /// To code of the same file.
    Local(u64),
    /// To whatever the dynamic linker bound a symbol to.
    Import(Import<'d>),
    /// Through a pointer.
    Unknown,
}

impl Target<'_> {
    /// Where that is in the same file, if it is.
    pub fn address(&self) -> Option<u64> {
        match self {
            Self::Local(address) => Some(*address),
            Self::Import(import) => import.address,
            Self::Unknown => None,
        }
    }
}

/// An image with what it takes to follow its calls, read when first needed.
#[derive(Debug)]
pub struct Text<'d> {
    image: Image<'d>,
    imports: FxHashMap<u64, Import<'d>>,
    unwind: OnceCell<Option<Unwind<'d>>>,
}

/// Where the unwind table says that functions are.
#[derive(Debug)]
enum Unwind<'d> {
    /// Searched with the index that shared files have.
    Indexed { index: ParsedEhFrameHdr<Reader<'d>>, frames: EhFrame<Reader<'d>>, bases: BaseAddresses },
    /// Start and length of each, in order of the starts: a static program has no index.
    Listed(Vec<(u64, u64)>),
}

impl<'d> Text<'d> {
    /// Reads the file's imports.
    pub fn new(image: Image<'d>) -> Result<Self, ElfError> {
        Ok(Self { image, imports: image.imports()?, unwind: OnceCell::new() })
    }

    /// The file.
    pub fn image(&self) -> &Image<'d> {
        &self.image
    }

    /// The function at an address. `size` is what its symbol says, 0 if nothing does. `None` if there is no
    /// code.
    pub fn function(&self, address: u64, size: u64) -> Option<Function<'d>> {
        let size = if size == 0 { self.size_by_unwind_table(address) } else { Some(size) };
        let whole = size.filter(|size| *size <= MAX_FUNCTION);
        let bytes = self.image.code(address, whole.unwrap_or(PROLOGUE))?;
        Some(Function::decode(address, bytes, whole.is_some_and(|size| size == bytes.len() as u64)))
    }

    /// Where a call or jump leads, through a stub of the procedure linkage table if there is one.
    pub fn target(&self, instruction: &Instruction) -> Target<'d> {
        match near_target(instruction) {
            Some(address) => self.stub(address).map_or(Target::Local(address), Target::Import),
            None => self.through_slot(instruction).map_or(Target::Unknown, Target::Import),
        }
    }

    /// The import that a stub (`endbr64`? `jmp [slot]`) jumps to.
    fn stub(&self, address: u64) -> Option<Import<'d>> {
        let bytes = self.image.code(address, 16)?;
        Decoder::with_ip(64, bytes, address, DecoderOptions::NONE)
            .into_iter()
            .find(|i| i.mnemonic() != Mnemonic::Endbr64)
            .filter(|i| i.flow_control() == FlowControl::IndirectBranch)
            .and_then(|jump| self.through_slot(&jump))
    }

    fn through_slot(&self, instruction: &Instruction) -> Option<Import<'d>> {
        let slot = instruction.is_ip_rel_memory_operand() && instruction.op0_kind() == OpKind::Memory;
        slot.then(|| self.imports.get(&instruction.ip_rel_memory_address()).copied()).flatten()
    }

    /// Bytes from an address to the end of its function.
    fn size_by_unwind_table(&self, address: u64) -> Option<u64> {
        let unwind = self.unwind.get_or_init(|| Unwind::read(&self.image)).as_ref()?;
        let (start, len) = match unwind {
            Unwind::Indexed { index, frames, bases } => {
                let entry =
                    index.table()?.fde_for_address(frames, bases, address, EhFrame::cie_from_offset).ok()?;
                (entry.initial_address(), entry.len())
            }
            Unwind::Listed(functions) => {
                let after = functions.partition_point(|(start, _)| *start <= address);
                *functions.get(after.checked_sub(1)?)?
            }
        };
        start.checked_add(len)?.checked_sub(address).filter(|size| *size > 0)
    }
}

impl<'d> Unwind<'d> {
    fn read(image: &Image<'d>) -> Option<Self> {
        let (frames_at, frames) = image.section(".eh_frame")?;
        let bases = BaseAddresses::default().set_eh_frame(frames_at);
        let frames = EhFrame::new(frames, gimli::LittleEndian);
        if let Some((index_at, index)) = image.section(".eh_frame_hdr") {
            let bases = bases.set_eh_frame_hdr(index_at);
            let index = EhFrameHdr::new(index, gimli::LittleEndian).parse(&bases, 8).ok()?;
            return Some(Self::Indexed { index, frames, bases });
        }
        let mut functions = Vec::new();
        let mut entries = frames.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            if let CieOrFde::Fde(partial) = entry
                && let Ok(function) = partial.parse(EhFrame::cie_from_offset)
            {
                functions.push((function.initial_address(), function.len()));
            }
        }
        functions.sort_unstable();
        Some(Self::Listed(functions))
    }
}

/// Target of a direct branch or call.
pub fn near_target(instruction: &Instruction) -> Option<u64> {
    (instruction.op0_kind() == OpKind::NearBranch64).then(|| instruction.near_branch64())
}

/// Whether an instruction is `test r, r` on a 64-bit register; which one.
pub fn tests_for_null(instruction: &Instruction) -> Option<Register> {
    (instruction.mnemonic() == Mnemonic::Test
        && instruction.op0_kind() == OpKind::Register
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
        && instruction.op0_register().is_gpr64())
    .then(|| instruction.op0_register())
}
