//! What a guest said, and whether that is success.
//!
//! Comes in: the guest's lines. Lines that begin with its secret word are its init's (`xtask/vm/init`), all others
//! come from the programs that it ran. Goes out: counts and sections. Never: takes anything for success but an init
//! that came to its end, with the same counts as we saw.

use anyhow::{Result, bail};

use crate::test::Counts;

/// What init says, behind its secret word.
const BEGIN: &str = "begin ";
const END: &str = "end ";
const REFUSED: &str = "refused ";
const KERNEL: &str = "kernel ";

/// The section whose tests count.
const SUITE: &str = "suite";

/// What is heard of a guest.
#[derive(Debug)]
pub struct Guest {
    /// What its init's lines begin with; nobody else in the guest knows it.
    word: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Finished sections: name, what was said in it, exit code.
    pub sections: Vec<Section>,
    open: Option<Section>,
    /// Why the kernel is not one to trace on.
    pub refused: Option<String>,
    counts: Counts,
    /// What init counted at its end.
    end: Option<String>,
}

/// A program's output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// Which.
    pub name: String,
    /// Lines.
    pub text: String,
    /// Its exit code.
    pub code: Option<i32>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All tests passed.
    Passed,
    /// leaktrace says that this kernel won't do.
    Refused(String),
}

impl Guest {
    /// Nothing was heard yet.
    pub fn new(word: &str) -> Self {
        Self {
            word: format!("{word} "),
            kernel: String::new(),
            sections: Vec::new(),
            open: None,
            refused: None,
            counts: Counts::default(),
            end: None,
        }
    }

    /// Takes in a line; whether a person should see it.
    pub fn hears(&mut self, line: &str) -> bool {
        let Some(told) = line.strip_prefix(&self.word) else {
            if let Some(section) = &mut self.open {
                section.text.push_str(line);
                section.text.push('\n');
                if section.name == SUITE {
                    self.counts.read(line);
                }
            }
            return true;
        };
        if let Some(name) = told.strip_prefix(BEGIN) {
            self.open = Some(Section { name: name.to_owned(), ..Section::default() });
        } else if let Some(code) = told.strip_prefix(END) {
            if let Some(mut section) = self.open.take() {
                section.code = code.parse().ok();
                self.sections.push(section);
            }
        } else if let Some(why) = told.strip_prefix(REFUSED) {
            self.refused = Some(why.to_owned());
        } else if let Some(release) = told.strip_prefix(KERNEL) {
            release.clone_into(&mut self.kernel);
        } else if told.starts_with("done ") {
            self.end = Some(told.to_owned());
        }
        false
    }

    /// A section that ended.
    pub fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| section.name == name)
    }

    /// Counts of tests.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// After its end: what it comes to.
    pub fn verdict(&self) -> Result<Verdict> {
        let Some(end) = &self.end else {
            let place = self.open.as_ref().map_or("its start", |section| section.name.as_str());
            bail!("the guest ended in {place}, not by itself");
        };
        if let Some(why) = &self.refused {
            return Ok(Verdict::Refused(why.clone()));
        }
        let suite = self.section(SUITE).and_then(|suite| suite.code);
        let Counts { passed, failed, ignored, .. } = self.counts;
        let seen = format!("done passed={passed} failed={failed} ignored={ignored}");
        if *end != seen {
            bail!("the guest counted `{end}`, but what it said comes to `{seen}`");
        }
        self.counts.verdict()?;
        if suite != Some(0) {
            bail!("the suite ended with {suite:?}");
        }
        Ok(Verdict::Passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out";

    fn guest(lines: &[&str]) -> Guest {
        let mut guest = Guest::new("w0rd");
        for line in lines {
            guest.hears(line);
        }
        guest
    }

    fn refuses(lines: &[&str], why: &str) {
        let error = guest(lines).verdict().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    #[test]
    fn success_is_an_end_with_the_same_counts() {
        let all = ["w0rd begin suite", RESULT, "w0rd end 0", "w0rd done passed=2 failed=0 ignored=1"];
        assert_eq!(guest(&all).verdict().unwrap(), Verdict::Passed);
        assert_eq!(guest(&all).counts().passed, 2);
        refuses(&all[..3], "not by itself");
        refuses(&[all[0], all[1]], "ended in suite");
        refuses(&[all[0], all[2], all[3]], "counted");
        refuses(&[all[0], RESULT, "w0rd end 101", all[3]], "101");
    }

    #[test]
    fn nothing_that_a_program_prints_is_an_end() {
        refuses(&["w0rd begin suite", RESULT, "done passed=2 failed=0 ignored=1"], "not by itself");
        refuses(&[" w0rd done passed=0 failed=0 ignored=0"], "not by itself");
    }

    #[test]
    fn no_tests_are_no_success() {
        let result = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out";
        let lines = ["w0rd begin suite", result, "w0rd end 0", "w0rd done passed=0 failed=0 ignored=0"];
        refuses(&lines, "no test ran");
    }

    #[test]
    fn failures_are_failures_whatever_the_guest_says() {
        let result = "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        let lines = ["w0rd begin suite", result, "w0rd end 0", "w0rd done passed=2 failed=1 ignored=0"];
        refuses(&lines, "1 tests failed");
    }

    #[test]
    fn a_kernel_that_is_refused_is_told_from_one_that_fails() {
        let lines = ["w0rd kernel 5.4.0", "w0rd refused no BTF", "w0rd done passed=0 failed=0 ignored=0"];
        let guest = guest(&lines);
        assert_eq!(guest.verdict().unwrap(), Verdict::Refused("no BTF".to_owned()));
        assert_eq!(guest.kernel, "5.4.0");
    }

    #[test]
    fn sections_are_kept() {
        let guest = guest(&["w0rd begin doctor", "ok", "fine", "w0rd end 1"]);
        let doctor = guest.section("doctor").unwrap();
        assert_eq!((doctor.text.as_str(), doctor.code), ("ok\nfine\n", Some(1)));
    }
}
