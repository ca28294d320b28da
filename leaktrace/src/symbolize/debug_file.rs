//! Where the debug information of a stripped file is.
//!
//! Comes in: a file with its build id and `.gnu_debuglink`. Goes out: the open debug file that belongs to it,
//! proven by build id or checksum. Looked for as gdb does: by build id in the debug directories, then by the
//! link's name beside the file and in the debug directories; in the target's file tree, then in ours. blazesym
//! does the first only for files that have a link. Never: the network, a debug file of another build.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{FileHeader64, SHT_NOBITS};
use object::read::ReadCache;
use object::read::elf::{FileHeader as _, SectionHeader as _};

use crate::target::{Elf, ModuleFile, Root};

/// A link is a file name and a checksum.
const MAX_LINK: u64 = 4096;

/// Where debug files are looked for.
#[derive(Debug)]
pub(super) struct DebugFiles<'o> {
    /// In each of the file trees.
    pub directories: &'o [PathBuf],
    /// Our file tree.
    pub own: Option<Root>,
    /// The target's, while it lives.
    pub target: Option<Root>,
}

/// What a file's section headers say of its debug information.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Sections {
    /// It has it itself.
    pub debug_info: bool,
    /// `.gnu_debuglink`: name and CRC-32 of the debug file.
    link: Option<(OsString, u32)>,
}

impl Sections {
    /// Nothing if it has no section headers.
    pub fn read(file: &File) -> Self {
        Self::try_read(file).unwrap_or_default()
    }

    fn try_read(file: &File) -> Option<Self> {
        let data = &ReadCache::new(file);
        let header = FileHeader64::<Endianness>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let sections = header.sections(endian, data).ok()?;
        let has = |name: &[u8]| {
            let (_, section) = sections.section_by_name(endian, name)?;
            (section.sh_type(endian) != SHT_NOBITS).then_some(section)
        };
        let link = has(b".gnu_debuglink")
            .filter(|section| section.sh_size(endian) <= MAX_LINK)
            .and_then(|section| parse_link(endian, section.data(endian, data).ok()?));
        Some(Self { debug_info: has(b".debug_info").is_some(), link })
    }
}

/// A name, its NUL, zeros up to a multiple of four, the checksum.
fn parse_link(endian: Endianness, section: &[u8]) -> Option<(OsString, u32)> {
    let end = section.iter().position(|byte| *byte == 0)?;
    let at = (end + 1).next_multiple_of(4);
    let checksum = section.get(at..at + 4)?.try_into().ok()?;
    let checksum = match endian {
        Endianness::Little => u32::from_le_bytes(checksum),
        Endianness::Big => u32::from_be_bytes(checksum),
    };
    // A name, not a path: it must not lead elsewhere.
    let name = Path::new(OsStr::from_bytes(&section[..end])).file_name()?;
    Some((name.to_owned(), checksum))
}

impl DebugFiles<'_> {
    /// The debug file of `file`.
    pub fn find(&self, file: &ModuleFile, sections: &Sections) -> Option<File> {
        let trees = || self.target.iter().chain(&self.own);
        let by_build_id = || {
            let build_id = file.build_id()?;
            let name = build_id_name(build_id)?;
            let paths = self.directories.iter().map(|directory| directory.join(".build-id").join(&name));
            open_first(trees, paths, |found| {
                Elf::read(found)?.build_id.filter(|id| id == build_id).map(|_| ())
            })
        };
        let by_link = || {
            let (name, checksum) = sections.link.as_ref()?;
            let beside = file.path().parent()?;
            let below_root = beside.strip_prefix("/").unwrap_or(beside);
            let paths = [beside.join(name), beside.join(".debug").join(name)]
                .into_iter()
                .chain(self.directories.iter().map(|directory| directory.join(below_root).join(name)));
            // A link that names the file itself proves nothing.
            let belongs = |found: &File| {
                let other = Elf::read(found)?.build_id;
                let same = match (file.build_id(), other) {
                    (Some(id), Some(other)) => id == other,
                    _ => crc32(found)? == *checksum,
                };
                (same && Sections::read(found) != *sections).then_some(())
            };
            open_first(trees, paths, belongs)
        };
        by_build_id().or_else(by_link)
    }
}

/// `ab/cdef….debug`, as below `.build-id`.
fn build_id_name(build_id: &str) -> Option<PathBuf> {
    let (first, rest) = build_id.split_at_checked(2)?;
    (!rest.is_empty()).then(|| Path::new(first).join(format!("{rest}.debug")))
}

/// The first regular file at any of the paths, in any of the trees, that belongs.
fn open_first<'r, I: Iterator<Item = &'r Root>>(
    trees: impl Fn() -> I,
    paths: impl Iterator<Item = PathBuf>,
    belongs: impl Fn(&File) -> Option<()>,
) -> Option<File> {
    paths
        .flat_map(|path| trees().filter_map(move |tree| tree.open(&path).ok()).collect::<Vec<_>>())
        .filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))
        .find(|file| belongs(file).is_some())
}

/// The checksum of a whole file, as the link has it.
fn crc32(mut file: &File) -> Option<u32> {
    file.rewind().ok()?;
    let mut crc = flate2::Crc::new();
    let mut block = vec![0; 1 << 18];
    loop {
        match file.read(&mut block).ok()? {
            0 => return Some(crc.sum()),
            read => crc.update(&block[..read]),
        }
    }
}
