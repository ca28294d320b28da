//! Names of generated code, from the file that runtimes write for `perf`.
//!
//! Comes in: `/tmp/perf-PID.map` in the process's file tree: lines of `START SIZE NAME`, appended as code is
//! made. Goes out: the name at an address. Read on from where it ended, so that a large one costs once; kept
//! open, so that it outlives its process. Ours and not blazesym's: that reads all of it again after each change,
//! keeps what it had before, and asks the process, which may be gone. Never: waits for a writer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::event::{Pid, ProcessKey};
use crate::target::{Process, Root};

/// More is not read of one map. Large runtimes write some ten megabytes.
const MAX_BYTES: u64 = 256 << 20;

/// The map of one process.
#[derive(Debug)]
pub(super) struct PerfMap {
    file: File,
    /// Bytes read so far.
    read: u64,
    /// What was read of a line that had no end yet.
    unfinished: Vec<u8>,
    /// By start: end and name. Do not overlap.
    functions: BTreeMap<u64, (u64, Arc<str>)>,
}

impl PerfMap {
    /// Opens the map of a process; after its end, the one that it left here.
    pub fn open(process: ProcessKey) -> Option<Self> {
        let file = match Process::open_same(process) {
            Ok(living) => living.root().ok()?.open(&path(living.inner_pid().ok()?)).ok()?,
            Err(_) => Root::own().ok()?.open(&path(process.pid)).ok().filter(|file| is_of(file, process))?,
        };
        let regular = file.metadata().ok()?.is_file();
        regular.then(|| Self::new(file))
    }

    fn new(file: File) -> Self {
        Self { file, read: 0, unfinished: Vec::new(), functions: BTreeMap::new() }
    }

    /// The function at an address.
    pub fn find(&mut self, address: u64) -> Option<Arc<str>> {
        if let Some(name) = self.known(address) {
            return Some(name);
        }
        if let Err(error) = self.read_on() {
            tracing::warn!("a perf map can't be read: {error}");
        }
        self.known(address)
    }

    fn known(&self, address: u64) -> Option<Arc<str>> {
        let (_, (end, name)) = self.functions.range(..=address).next_back()?;
        (address < *end).then(|| Arc::clone(name))
    }

    fn read_on(&mut self) -> io::Result<()> {
        let more = self.file.metadata()?.size().min(MAX_BYTES).saturating_sub(self.read);
        let mut bytes = std::mem::take(&mut self.unfinished);
        self.read += (&self.file).take(more).read_to_end(&mut bytes)? as u64;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.unfinished = bytes.split_off(whole);
        for line in bytes.split(|byte| *byte == b'\n') {
            if let Some((start, end, name)) = parse(line) {
                self.add(start, end, name);
            }
        }
        Ok(())
    }

    /// A later function takes the place of earlier ones that lay there.
    fn add(&mut self, start: u64, end: u64, name: Arc<str>) {
        while let Some((&before, &(its_end, _))) = self.functions.range(..end).next_back()
            && its_end > start
        {
            self.functions.remove(&before);
        }
        self.functions.insert(start, (end, name));
    }
}

/// `START SIZE NAME`, in hexadecimal without `0x`; the name may have spaces. Some runtimes write the `0x`.
fn parse(line: &[u8]) -> Option<(u64, u64, Arc<str>)> {
    let line = String::from_utf8_lossy(line);
    let (start, rest) = line.split_once(' ')?;
    let (size, name) = rest.split_once(' ')?;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    let (start, size) = (number(start)?, number(size)?);
    (size > 0).then_some((start, start.checked_add(size)?, name.trim_end().into()))
}

fn path(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/tmp/perf-{pid}.map"))
}

/// Whether a map that was found by a pid was written by the process that had it last: an earlier one with the
/// same pid wrote before this one started.
fn is_of(file: &File, process: ProcessKey) -> bool {
    let ns = |time: Timespec| i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
    let boot = ns(clock_gettime(ClockId::Realtime)) - ns(clock_gettime(ClockId::Boottime));
    file.metadata().is_ok_and(|metadata| {
        let written = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
        written - boot >= i128::from(process.start_ns)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::io::Write as _;
    use std::time::{Duration, SystemTime};

    use super::*;

    fn map(text: &str) -> (PerfMap, File) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        (PerfMap::new(file.reopen().unwrap()), file.into_file())
    }

    fn name(map: &mut PerfMap, address: u64) -> Option<String> {
        map.find(address).map(|name| name.to_string())
    }

    #[test]
    fn a_name_reaches_as_far_as_its_code() {
        let (mut map, _) = map("1000 20 a b c\n0x1020 0x10 second\n1040 0 empty\n\nnonsense\nx 1 y\n");
        for (address, expected) in [
            (0xfff, None),
            (0x1000, Some("a b c")),
            (0x101f, Some("a b c")),
            (0x1020, Some("second")),
            (0x1030, None),
            (0x1040, None),
        ] {
            assert_eq!(name(&mut map, address).as_deref(), expected, "{address:#x}");
        }
        assert_eq!(map.functions.len(), 2);
    }

    #[test]
    fn what_is_appended_is_read_on_and_half_a_line_waits() {
        let (mut map, mut file) = map("1000 10 first\n2000 10 sec");
        assert_eq!(name(&mut map, 0x1000).unwrap(), "first");
        assert_eq!(name(&mut map, 0x2000), None);
        file.write_all(b"ond\n3000 10 third\n").unwrap();
        assert_eq!(name(&mut map, 0x2000).unwrap(), "second");
        assert_eq!(name(&mut map, 0x3000).unwrap(), "third");
        assert_eq!(map.read, file.metadata().unwrap().size());
    }

    #[test]
    fn later_code_takes_the_place_of_earlier_code() {
        let (mut map, _) = map("1000 10 a\n1010 10 b\n1020 10 c\n1018 10 later\n");
        assert_eq!(name(&mut map, 0x1008).unwrap(), "a");
        assert_eq!(name(&mut map, 0x1010), None);
        assert_eq!(name(&mut map, 0x1018).unwrap(), "later");
        assert_eq!(name(&mut map, 0x1028), None);
    }

    #[test]
    fn a_map_from_before_the_process_is_an_earlier_ones() {
        let (_, file) = map("");
        let now = clock_gettime(ClockId::Boottime).tv_sec as u64 * 1_000_000_000;
        let process = |start_ns| ProcessKey { pid: Pid(1), start_ns };
        assert!(is_of(&file, process(now.saturating_sub(60_000_000_000))));
        file.set_times(FileTimes::new().set_modified(SystemTime::now() - Duration::from_hours(1))).unwrap();
        assert!(!is_of(&file, process(now)));
    }
}
