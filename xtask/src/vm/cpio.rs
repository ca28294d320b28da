//! An archive as the kernel unpacks it into its first file system (`cpio -H newc`).
//!
//! Comes in: paths and what is there. Goes out: bytes. Never: looks at the machine's files.

use std::io::{self, Write};
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;

/// Writes entries; directories must come before what is in them.
pub struct Archive<W> {
    to: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(to: W) -> Self {
        Self { to, inode: 0 }
    }

    /// A directory.
    pub fn directory(&mut self, path: &Path) -> io::Result<()> {
        self.entry(path, DIRECTORY, &[])
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.entry(path, LINK, target.as_os_str().as_encoded_bytes())
    }

    /// A file with its permissions.
    pub fn file(&mut self, path: &Path, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.entry(path, FILE | permissions & 0o7777, content)
    }

    /// Ends it.
    pub fn finish(mut self) -> io::Result<()> {
        self.inode = 0;
        self.entry(Path::new("TRAILER!!!"), 0, &[])?;
        self.to.flush()
    }

    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
        let name = path.as_os_str().as_encoded_bytes();
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let size = u32::try_from(content.len())
            .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "the format holds files up to 4 GiB"))?;
        self.inode += 1;
        let (owner, links, time, device) = (0, 1, 0, 0);
        let named = name.len() as u32 + 1;
        let fields =
            [self.inode, mode, owner, owner, links, time, size, device, device, device, device, named, 0];
        self.to.write_all(b"070701")?;
        for field in fields {
            write!(self.to, "{field:08x}")?;
        }
        self.to.write_all(name)?;
        self.to.write_all(b"\0")?;
        // The header has 110 bytes; name and content begin at multiples of 4.
        self.pad(110 + name.len() + 1)?;
        self.to.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> io::Result<()> {
        self.to.write_all(&[0; 3][..written.wrapping_neg() % 4])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_format_says() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.directory(Path::new("/bin")).unwrap();
        archive.file(Path::new("/bin/abc"), 0o755, b"hello").unwrap();
        archive.link(Path::new("/init"), Path::new("bin/abc")).unwrap();
        archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.matches("070701").count(), 4);
        let file = &text[116..];
        assert!(file.starts_with("07070100000002000081ed"), "{file}");
        assert_eq!(&file[54..62], "00000005");
        assert_eq!(&file[94..102], "00000008");
        assert_eq!(&file[110..120], "bin/abc\0\0\0");
        assert_eq!(&file[120..128], "hello\0\0\0");
        assert!(text.contains("TRAILER!!!"));
    }
}
