//! An x86-64 program or library: its functions by name, its code, what its calls lead to.
//!
//! Comes in: an open file. Goes out: names, addresses, file offsets, bytes. Reads only what it is asked for, so
//! a library without anything of interest costs its dynamic symbol table. Never: maps the file (a file that
//! shrinks must not kill the agent), never runs it.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::fs::File;

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::read::{ReadCache, ReadRef};
use object::{LittleEndian, elf::FileHeader64};
use rustc_hash::FxHashMap;

const LE: LittleEndian = LittleEndian;

/// A file, read piecewise and remembered.
pub type Bytes = ReadCache<File>;

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message names its fields")]
pub enum ElfError {
    #[error("not an ELF file")]
    NotElf,
    #[error("a 32-bit program: leaktrace traces x86-64 only")]
    Bits32,
    #[error("a program for another processor (ELF machine {machine}): leaktrace traces x86-64 only")]
    Machine { machine: u16 },
    #[error("damaged or unreadable: {source}")]
    Damaged {
        #[from]
        source: object::read::Error,
    },
}

/// Which of a file's two symbol tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SymbolTable {
    /// `.dynsym`: what other files may link to. Always there if the file is dynamic.
    Dynamic,
    /// `.symtab`: everything, unless the file was stripped.
    Full,
}

/// A function that a file defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'d> {
    /// Its name, without a version.
    pub name: &'d [u8],
    /// Virtual address, as the file was linked.
    pub address: u64,
    /// Bytes of code; 0 if the file does not say.
    pub size: u64,
}

/// What the dynamic linker puts into a slot of the global offset table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Import<'d> {
    /// The symbol.
    pub name: &'d [u8],
    /// Where this very file defines it, if it does; another file may still take precedence.
    pub address: Option<u64>,
}

/// A parsed file.
#[derive(Debug, Clone, Copy)]
pub struct Image<'d> {
    data: &'d Bytes,
    header: &'d FileHeader64<LittleEndian>,
    segments: &'d [elf::ProgramHeader64<LittleEndian>],
    sections: &'d [elf::SectionHeader64<LittleEndian>],
    section_names: &'d [u8],
}

impl<'d> Image<'d> {
    /// Checks the headers.
    pub fn parse(data: &'d Bytes) -> Result<Self, ElfError> {
        let ident: &[u8] = data.read_bytes_at(0, 20).map_err(|()| ElfError::NotElf)?;
        if ident[..4] != *b"\x7fELF" {
            return Err(ElfError::NotElf);
        }
        if ident[4] != elf::ELFCLASS64.0 {
            return Err(ElfError::Bits32);
        }
        let machine = u16::from_le_bytes([ident[18], ident[19]]);
        if ident[5] != elf::ELFDATA2LSB.0 || machine != elf::EM_X86_64.0 {
            return Err(ElfError::Machine { machine });
        }
        let header = FileHeader64::<LittleEndian>::parse(data)?;
        let segments = header.program_headers(LE, data)?;
        let sections = header.section_headers(LE, data)?;
        let section_names =
            match header.shstrndx(LE, data).ok().and_then(|index| sections.get(index as usize)) {
                Some(names) => names.data(LE, data)?,
                None => &[],
            };
        Ok(Self { data, header, segments, sections, section_names })
    }

    /// The file offset of a virtual address that is code.
    pub fn offset(&self, address: u64) -> Option<u64> {
        self.segments.iter().find_map(|s| {
            let delta = address.checked_sub(s.p_vaddr(LE))?;
            let code = s.p_type(LE) == elf::PT_LOAD && s.p_flags(LE).contains(elf::PF_X);
            (code && delta < s.p_filesz(LE)).then(|| s.p_offset(LE) + delta)
        })
    }

    /// Up to `len` bytes of code from `address` on; fewer at the end of a segment.
    pub fn code(&self, address: u64, len: u64) -> Option<&'d [u8]> {
        let offset = self.offset(address)?;
        let end = self.segments.iter().find_map(|s| {
            let delta = offset.checked_sub(s.p_offset(LE))?;
            (s.p_type(LE) == elf::PT_LOAD && delta < s.p_filesz(LE)).then(|| s.p_offset(LE) + s.p_filesz(LE))
        })?;
        self.data.read_bytes_at(offset, len.min(end - offset)).ok()
    }

    /// Contents of a section, with its virtual address; `None` if it is not there or has no bytes here (a
    /// debug file).
    pub fn section(&self, name: &str) -> Option<(u64, &'d [u8])> {
        let section = self.sections.iter().find(|s| {
            let at = s.sh_name(LE) as usize;
            self.section_names
                .get(at..)
                .and_then(|n| CStr::from_bytes_until_nul(n).ok())
                .is_some_and(|n| n.to_bytes() == name.as_bytes())
        })?;
        if section.sh_type(LE) == elf::SHT_NOBITS {
            return None;
        }
        Some((section.sh_addr(LE), section.data(LE, self.data).ok()?))
    }

    /// Whether there is such a table.
    pub fn has(&self, table: SymbolTable) -> bool {
        self.table(table).is_some()
    }

    /// Visits each function that the file defines itself. Names of more than `longest` bytes are passed over,
    /// and so are indirect functions, whose symbol is not what runs.
    pub fn functions(
        &self,
        table: SymbolTable,
        longest: usize,
        mut visit: impl FnMut(Symbol<'d>),
    ) -> Result<(), ElfError> {
        let Some(section) = self.table(table) else { return Ok(()) };
        let (symbols, names) = self.symbols(section)?;
        for symbol in symbols {
            if symbol.st_type() != elf::STT_FUNC || symbol.is_undefined(LE) || symbol.st_value(LE) == 0 {
                continue;
            }
            if let Some(name) = name_at(names, symbol.st_name(LE) as usize, longest) {
                // Static linking may leave the version in the name: `malloc@@GLIBC_2.2.5`.
                let name = match table {
                    SymbolTable::Dynamic => name,
                    SymbolTable::Full => name.split(|b| *b == b'@').next().unwrap_or(name),
                };
                visit(Symbol { name, address: symbol.st_value(LE), size: symbol.st_size(LE) });
            }
        }
        Ok(())
    }

    /// The slots of the global offset table that name a symbol, by their virtual address.
    pub fn imports(&self) -> Result<FxHashMap<u64, Import<'d>>, ElfError> {
        let mut slots = FxHashMap::default();
        let Some(dynamic) = self.table(SymbolTable::Dynamic) else { return Ok(slots) };
        let (symbols, names) = self.symbols(dynamic)?;
        for section in self.sections.iter().filter(|s| s.sh_type(LE) == elf::SHT_RELA) {
            for relocation in section.data_as_array::<elf::Rela64<LittleEndian>, _>(LE, self.data)? {
                let kind = relocation.r_type(LE, false);
                if kind != elf::R_X86_64_JUMP_SLOT && kind != elf::R_X86_64_GLOB_DAT {
                    continue;
                }
                let Some(symbol) = symbols.get(relocation.r_sym(LE, false) as usize) else { continue };
                let Some(name) = name_at(names, symbol.st_name(LE) as usize, usize::MAX) else { continue };
                let address = (!symbol.is_undefined(LE)).then(|| symbol.st_value(LE));
                slots.insert(relocation.r_offset.get(LE), Import { name, address });
            }
        }
        Ok(slots)
    }

    /// Whether this is a program, not a library.
    pub fn is_program(&self) -> bool {
        match self.header.e_type(LE) {
            elf::ET_EXEC => true,
            elf::ET_DYN => self.is_position_independent_program(),
            _ => false,
        }
    }

    /// Whether this is a program without a dynamic loader: all its code is in this one file.
    pub fn is_static_program(&self) -> bool {
        self.is_program() && !self.segments.iter().any(|s| s.p_type(LE) == elf::PT_INTERP)
    }

    /// `DF_1_PIE`: what tells such a program from a library.
    fn is_position_independent_program(&self) -> bool {
        self.segments
            .iter()
            .filter_map(|s| s.dynamic(LE, self.data).ok().flatten())
            .flatten()
            .any(|entry| entry.d_tag.get(LE) == elf::DT_FLAGS_1 && entry.d_val.get(LE) & elf::DF_1_PIE.0 != 0)
    }

    /// The build id, hexadecimal.
    pub fn build_id(&self) -> Option<String> {
        let all_notes = self.segments.iter().filter_map(|s| s.notes(LE, self.data).ok().flatten());
        let id = all_notes.into_iter().find_map(|mut notes| {
            while let Ok(Some(note)) = notes.next() {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(LE) == elf::NT_GNU_BUILD_ID {
                    return Some(note.desc());
                }
            }
            None
        })?;
        Some(id.iter().fold(String::with_capacity(2 * id.len()), |mut hex, byte| {
            // Writing to a String can't fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        }))
    }

    fn table(&self, table: SymbolTable) -> Option<&'d elf::SectionHeader64<LittleEndian>> {
        let kind = match table {
            SymbolTable::Dynamic => elf::SHT_DYNSYM,
            SymbolTable::Full => elf::SHT_SYMTAB,
        };
        self.sections.iter().find(|s| s.sh_type(LE) == kind)
    }

    fn symbols(
        &self,
        section: &'d elf::SectionHeader64<LittleEndian>,
    ) -> Result<(&'d [elf::Sym64<LittleEndian>], &'d [u8]), ElfError> {
        let symbols = section.data_as_array(LE, self.data)?;
        let names = self.sections.get(section.link(LE).0).map_or(Ok(&[][..]), |s| s.data(LE, self.data))?;
        Ok((symbols, names))
    }
}

/// The string at `at`, unless it is longer than `longest`.
fn name_at(strings: &[u8], at: usize, longest: usize) -> Option<&[u8]> {
    let rest = strings.get(at..)?;
    let window = &rest[..rest.len().min(longest.saturating_add(1))];
    CStr::from_bytes_until_nul(window).ok().map(CStr::to_bytes).filter(|name| !name.is_empty())
}
