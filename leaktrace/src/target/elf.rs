//! The little of an ELF file that placing an address needs.
//!
//! Comes in: an open file. Goes out: its build id, its type, and where its code lies. Reads headers and notes
//! only, with `read`, so that a file that shrinks meanwhile is an error and not a SIGBUS. Never: symbols,
//! 32-bit files.

use std::fmt::Write as _;
use std::fs::File;

use object::Endianness;
use object::elf::{ELF_NOTE_GNU, ET_DYN, ET_EXEC, FileHeader64, NT_GNU_BUILD_ID, PF_X, PT_LOAD, PT_NOTE};
use object::read::ReadCache;
use object::read::elf::{FileHeader as _, ProgramHeader as _};

/// Notes longer than this are not the linker's.
const MAX_NOTES: u64 = 64 << 10;

/// What kind of ELF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfType {
    /// Linked to fixed addresses.
    Executable,
    /// A library or a position-independent executable.
    Shared,
    /// Anything else (a core, an object file).
    Other,
}

/// A 64-bit ELF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elf {
    /// Its type.
    pub elf_type: ElfType,
    /// Hexadecimal, lower case.
    pub build_id: Option<String>,
    code: Box<[Segment]>,
}

/// An executable segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    file_offset: u64,
    file_size: u64,
    address: u64,
}

impl Elf {
    /// Reads the headers; `None` if it is no 64-bit ELF file or a broken one.
    pub fn read(file: &File) -> Option<Self> {
        let data = &ReadCache::new(file);
        let header = FileHeader64::<Endianness>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let mut code = Vec::new();
        let mut build_id = None;
        for segment in header.program_headers(endian, data).ok()? {
            let (file_offset, file_size) = segment.file_range(endian);
            if segment.p_type(endian) == PT_LOAD && segment.p_flags(endian).contains(PF_X) {
                code.push(Segment { file_offset, file_size, address: segment.p_vaddr(endian) });
            } else if segment.p_type(endian) == PT_NOTE && build_id.is_none() && file_size <= MAX_NOTES {
                build_id = segment.notes(endian, data).ok().flatten().and_then(|mut notes| {
                    while let Ok(Some(note)) = notes.next() {
                        if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
                            return Some(hexadecimal(note.desc()));
                        }
                    }
                    None
                });
            }
        }
        let elf_type = match header.e_type(endian) {
            ET_EXEC => ElfType::Executable,
            ET_DYN => ElfType::Shared,
            _ => ElfType::Other,
        };
        Some(Self { elf_type, build_id, code: code.into() })
    }

    /// The address that the file's symbols use for the code at a file offset.
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        let within = |s: &&Segment| file_offset.checked_sub(s.file_offset).is_some_and(|at| at < s.file_size);
        let segment = self.code.iter().find(within)?;
        (file_offset - segment.file_offset).checked_add(segment.address)
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::target::programs::{Workshop, tool};

    #[test]
    fn reads_what_readelf_reads() {
        let shop = Workshop::new();
        for (flags, elf_type) in [(vec!["-no-pie"], ElfType::Executable), (vec!["-pie"], ElfType::Shared)] {
            let program = shop.c("int main(void) { return 0; }", "p", &flags);
            let elf = Elf::read(&File::open(&program).unwrap()).unwrap();
            let notes = tool("readelf", &["-n", program.to_str().unwrap()]);
            let expected = notes.split("Build ID: ").nth(1).unwrap().split_whitespace().next().unwrap();
            assert_eq!(elf.build_id.as_deref(), Some(expected));
            assert_eq!(elf.elf_type, elf_type);

            let symbols = tool("readelf", &["-sW", program.to_str().unwrap()]);
            let main = symbols.lines().find(|line| line.ends_with(" main")).unwrap();
            let address = u64::from_str_radix(main.split_whitespace().nth(1).unwrap(), 16).unwrap();
            let base = if elf_type == ElfType::Executable { 0x40_0000 } else { 0 };
            assert_eq!(elf.address_of(address - base), Some(address));
            assert_eq!(elf.address_of(0), None, "the ELF header is not code");
            assert_eq!(elf.address_of(1 << 40), None);
        }
    }

    #[test]
    fn a_file_without_a_build_id_has_none() {
        let shop = Workshop::new();
        let program = shop.c("int main(void) { return 0; }", "p", &["-Wl,--build-id=none"]);
        assert_eq!(Elf::read(&File::open(program).unwrap()).unwrap().build_id, None);
    }

    #[test]
    fn what_is_no_elf_file_is_none() {
        let shop = Workshop::new();
        let whole = std::fs::read(shop.c("int main(void) { return 0; }", "p", &[])).unwrap();
        for (name, bytes) in [
            ("empty", &[][..]),
            ("script", b"#!/bin/sh\n"),
            ("magic only", b"\x7fELF"),
            ("cut in its headers", &whole[..100]),
        ] {
            let path = shop.path().join("f");
            File::create(&path).unwrap().write_all(bytes).unwrap();
            assert_eq!(Elf::read(&File::open(&path).unwrap()), None, "{name}");
        }
    }
}
