//! Where the code of a running process differs from its files: breakpoints that someone put there.
//!
//! Comes in: a pid. Goes out: file and offset of each byte of mapped code that is not as in the file. Never: writes
//! to the process.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A byte of code that is not as in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breakpoint {
    /// The file.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
}

/// All of them. Mappings whose file is gone are left out: there is nothing to compare with.
pub fn in_process(pid: u32) -> Vec<Breakpoint> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process runs");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("root may read a process");
    maps.lines().filter_map(Code::parse).flat_map(|code| code.differences(&memory)).collect()
}

/// A mapping of code.
struct Code<'a> {
    start: u64,
    length: u64,
    offset: u64,
    file: &'a Path,
}

impl<'a> Code<'a> {
    /// Of a line of `maps`: `START-END PERMISSIONS OFFSET DEVICE INODE PATH`.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let executable = fields.next()?.contains('x');
        let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
        let file = Path::new(fields.nth(2)?);
        let start = u64::from_str_radix(start, 16).ok()?;
        let length = u64::from_str_radix(end, 16).ok()? - start;
        (executable && file.is_file()).then_some(Self { start, length, offset, file })
    }

    fn differences(&self, memory: &File) -> Vec<Breakpoint> {
        let mut live = vec![0; self.length as usize];
        let mut stored = vec![0; self.length as usize];
        memory.read_exact_at(&mut live, self.start).expect("code can be read");
        let file = File::open(self.file).expect("the file is there");
        // The last page of a mapping may end behind the file.
        let size = file.metadata().expect("the file is there").len();
        let common = self.length.min(size.saturating_sub(self.offset)) as usize;
        file.read_exact_at(&mut stored[..common], self.offset).expect("the file can be read");
        (0..common)
            .filter(|&i| live[i] != stored[i])
            .map(|i| Breakpoint { file: self.file.to_owned(), offset: self.offset + i as u64 })
            .collect()
    }
}
