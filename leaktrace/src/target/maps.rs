//! The lines of `/proc/PID/maps`.
//!
//! Comes in: the file's bytes. Goes out: its executable mappings. Paths stay bytes: a process may map a file
//! whose name is no UTF-8, and one such line must not hide the others. Never: I/O.

use std::borrow::Cow;

/// One executable mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'m> {
    pub start: u64,
    pub end: u64,
    pub file_offset: u64,
    /// Major and minor number of the file system.
    pub device: (u32, u32),
    /// 0 if there is no file.
    pub inode: u64,
    path: &'m [u8],
}

/// The executable mappings, by address.
pub(super) fn executable(maps: &[u8]) -> impl Iterator<Item = Line<'_>> {
    maps.split(|byte| *byte == b'\n').filter_map(Line::parse)
}

impl<'m> Line<'m> {
    /// `start-end perms offset major:minor inode   path`; `None` if not executable.
    fn parse(line: &'m [u8]) -> Option<Self> {
        let (range, rest) = split(line, b' ')?;
        let (permissions, rest) = split(rest, b' ')?;
        if permissions.get(2) != Some(&b'x') {
            return None;
        }
        let (start, end) = split(range, b'-')?;
        let (file_offset, rest) = split(rest, b' ')?;
        let (device, rest) = split(rest, b' ')?;
        let (major, minor) = split(device, b':')?;
        let (inode, path) = split(rest, b' ').unwrap_or((rest, b""));
        Some(Self {
            start: number(start, 16)?,
            end: number(end, 16)?,
            file_offset: number(file_offset, 16)?,
            device: (number(major, 16)? as u32, number(minor, 16)? as u32),
            inode: number(inode, 10)?,
            path: path.trim_ascii_start(),
        })
    }

    /// The path, or the kernel's name in brackets, or nothing. The kernel writes a line feed in it as `\012`.
    pub fn path(&self) -> Cow<'m, [u8]> {
        const ESCAPED: &[u8] = b"\\012";
        if !self.path.windows(ESCAPED.len()).any(|window| window == ESCAPED) {
            return Cow::Borrowed(self.path);
        }
        let mut path = Vec::with_capacity(self.path.len());
        let mut rest = self.path;
        while let Some(byte) = rest.first() {
            if let Some(after) = rest.strip_prefix(ESCAPED) {
                path.push(b'\n');
                rest = after;
            } else {
                path.push(*byte);
                rest = &rest[1..];
            }
        }
        Cow::Owned(path)
    }
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = text.iter().position(|byte| *byte == at)?;
    Some((&text[..position], &text[position + 1..]))
}

fn number(text: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_can_run() {
        let maps = b"\
00400000-00452000 r-xp 00001000 08:02 173521      /usr/bin/dbus daemon
00651000-00652000 r--p 00051000 08:02 173521      /usr/bin/dbus-daemon
7f00a0000000-7f00a0021000 rwxp 00000000 00:00 0 
7f00b0000000-7f00b0001000 --xp 00000000 00:1f 12  /tmp/\xff\\012a\\b (deleted)
7ffe3f5fe000-7ffe3f600000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
";
        let lines: Vec<_> = executable(maps).collect();
        assert_eq!(
            lines[0],
            Line {
                start: 0x40_0000,
                end: 0x45_2000,
                file_offset: 0x1000,
                device: (8, 2),
                inode: 173_521,
                path: b"/usr/bin/dbus daemon"
            }
        );
        let paths: Vec<_> = lines.iter().map(|line| line.path().into_owned()).collect();
        assert_eq!(
            paths,
            [&b"/usr/bin/dbus daemon"[..], b"", b"/tmp/\xff\na\\b (deleted)", b"[vdso]", b"[vsyscall]"]
        );
        assert_eq!((lines[1].inode, lines[3].device), (0, (0, 0)));
        assert_eq!(lines[4].end, 0xffff_ffff_ff60_1000);
    }

    #[test]
    fn finds_every_executable_mapping_of_a_real_process() {
        let maps = std::fs::read("/proc/self/maps").unwrap();
        let expected = str::from_utf8(&maps)
            .unwrap()
            .lines()
            .filter(|line| line.split(' ').nth(1).is_some_and(|permissions| permissions.contains('x')));
        assert_eq!(executable(&maps).count(), expected.count());
        assert!(executable(&maps).count() > 2);
    }

    #[test]
    fn nonsense_is_no_mapping() {
        for line in ["", "\n\n", "garbage", "1-2 r-xp", "x-2 r-xp 0 0:0 0 ", "1-2 r-xp 0 00 0 /x"] {
            assert_eq!(executable(line.as_bytes()).count(), 0, "{line:?}");
        }
    }
}
