//! Names short enough for a line, and safe on a terminal.
//!
//! Comes in: function names, paths and comms as the target has them. Goes out: short forms. Never: a control
//! character, which would let a traced program write to the terminal of who looks at it; a change to what programs
//! read.

/// A function's name in at most `width` characters: first inner template arguments become `<…>`, then all, then
/// the parameters `(…)`, and only then is something left out of the middle.
pub(super) fn function(name: &str, width: usize) -> String {
    let name = printable(name);
    let fits = |name: &str| name.chars().count() <= width;
    if fits(&name) {
        return name;
    }
    let mut short = collapse_arguments(&name, 1);
    if !fits(&short) {
        short = collapse_arguments(&name, 0);
    }
    if !fits(&short) {
        short = collapse_parameters(&short);
    }
    cut(&short, width)
}

/// The end of a path, which says more than its beginning.
pub(super) fn path(path: &str, width: usize) -> String {
    let path = printable(path);
    let count = path.chars().count();
    if count <= width {
        return path;
    }
    let tail: String = path.chars().skip(count + 1 - width).collect();
    // From a whole part on, if one fits.
    let from = tail.find('/').unwrap_or(0);
    format!("…{}", &tail[from..])
}

/// Two thirds from the beginning, one from the end: a Rust method's own name comes last.
fn cut(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let tail = width.saturating_sub(1) / 3;
    let head = width.saturating_sub(1) - tail;
    text.chars().take(head).chain(['…']).chain(text.chars().skip(count - tail)).collect()
}

/// The text with its control characters spelled out.
pub(super) fn printable(text: &str) -> String {
    if !text.chars().any(char::is_control) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if character.is_control() {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Replaces what is inside of angle brackets deeper than `keep`. A `<` that opens the name is a Rust self type
/// (`<Vec<T> as Clone>::clone`), which is no argument.
fn collapse_arguments(name: &str, keep: i32) -> String {
    let mut short = String::with_capacity(name.len());
    let mut depth = if name.starts_with('<') { -1 } else { 0 };
    let mut rest = name;
    while let Some(character) = rest.chars().next() {
        let token = operator(rest).unwrap_or(&rest[..character.len_utf8()]);
        rest = &rest[token.len()..];
        match token {
            "<" => {
                depth += 1;
                if depth <= keep {
                    short.push('<');
                } else if depth == keep + 1 {
                    short.push_str("<…");
                }
            }
            ">" => {
                if depth <= keep + 1 {
                    short.push('>');
                }
                depth -= 1;
            }
            _ if depth <= keep => short.push_str(token),
            _ => {}
        }
    }
    short
}

/// What starts with an angle bracket's character and is none: `operator<<`, `operator->`, the arrow of a function type.
fn operator(rest: &str) -> Option<&str> {
    const OPERATORS: [&str; 11] = ["<=>", "<<=", ">>=", "->*", "<<", ">>", "<=", ">=", "->", "<", ">"];
    if rest.starts_with("->") {
        return Some(&rest[..2]);
    }
    let after = rest.strip_prefix("operator")?;
    let symbol = OPERATORS.into_iter().find(|symbol| after.starts_with(symbol))?;
    Some(&rest[.."operator".len() + symbol.len()])
}

/// Replaces the last parameter list.
fn collapse_parameters(name: &str) -> String {
    let Some(close) = name.rfind(')') else { return name.to_owned() };
    let mut depth = 0;
    for (at, byte) in name.as_bytes()[..=close].iter().enumerate().rev() {
        match byte {
            b')' => depth += 1,
            b'(' => depth -= 1,
            _ => continue,
        }
        if depth == 0 {
            let inner = &name[at + 1..close];
            if inner.is_empty() || inner == "anonymous namespace" {
                break;
            }
            return format!("{}(…){}", &name[..at], &name[close + 1..]);
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_is_left_alone() {
        let name = "std::vector<std::pair<int, char>>::reserve(unsigned long)";
        assert_eq!(function(name, name.len()), name);
    }

    #[test]
    fn templates_lose_their_insides_first() {
        let name =
            "ns::Map<std::string, std::vector<std::pair<int, char>>>::insert(std::pair<int, char> const&)";
        assert_eq!(
            function(name, 80),
            "ns::Map<std::string, std::vector<…>>::insert(std::pair<int, char> const&)"
        );
        assert_eq!(function(name, 50), "ns::Map<…>::insert(std::pair<…> const&)");
        assert_eq!(function(name, 30), "ns::Map<…>::insert(…)");
        assert_eq!(function(name, 12), "ns::Map<…(…)");
    }

    #[test]
    fn rust_self_types_and_arrows_are_no_arguments() {
        let name =
            "<alloc::vec::Vec<alloc::boxed::Box<dyn core::ops::Fn(u8) -> u8>> as core::clone::Clone>::clone";
        assert_eq!(function(name, 60), "<alloc::vec::Vec<…> as core::clone::Clone>::clone");
        assert_eq!(function(name, 40), "<alloc::vec::Vec<…> as cor…Clone>::clone");
        let name = "core::iter::map::<fn(u8) -> core::option::Option<u8>>::run";
        assert_eq!(function(name, 40), "core::iter::map::<…>::run");
    }

    #[test]
    fn operators_are_no_brackets() {
        let name = "std::ostream& std::operator<< <std::char_traits<char> >(std::ostream&, char const*)";
        assert_eq!(function(name, 60), "std::ostream& std::operator<< <…>(…)");
        let name = "Ptr<std::map<int, int>>::operator->() const and more of it";
        assert_eq!(function(name, 50), "Ptr<…>::operator->() const and more of it");
    }

    #[test]
    fn paths_keep_their_end() {
        assert_eq!(path("/home/me/src/deep/down/file.c:12", 20), "…/down/file.c:12");
        assert_eq!(path("averyveryverylongfile.c:12", 12), "…ngfile.c:12");
    }

    #[test]
    fn the_terminal_is_safe() {
        assert_eq!(printable("a\x1b[31mred\n"), "a\\u{1b}[31mred\\n");
        assert_eq!(printable("grün"), "grün");
    }

    proptest! {
        #[test]
        fn never_wider_never_a_panic(name in "[<>()a:, \\-é]{0,60}", width in 1usize..40) {
            prop_assert!(function(&name, width).chars().count() <= width);
            prop_assert!(path(&name.replace(':', "/"), width).chars().count() <= width);
        }
    }
}
