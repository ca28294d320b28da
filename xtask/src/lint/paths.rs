//! The paths that Rust source names: `std::fs::read`, also out of `use std::{fs, net}`.
//!
//! Comes in: tokens, so comments and text are no matter. Goes out: paths with their lines. Never: resolves a
//! name; what was imported is found where it is imported. Code under `#[cfg(test)]` is left out.

use std::iter::Peekable;

use proc_macro2::{Delimiter, TokenStream, TokenTree, token_stream::IntoIter};

/// A path of at least two names, or a glob, as it is written after braces are spread out.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// Its names; the last may be `*`.
    pub names: Vec<String>,
    /// Where its last name stands.
    pub line: usize,
}

/// Every path in `tokens`.
pub fn named_in(tokens: TokenStream) -> Vec<NamedPath> {
    let mut found = Vec::new();
    scan(without_tests(tokens), &[], &mut found);
    found
}

/// Reads a list of paths that all start with `prefix`, and everything else on the way.
fn scan(tokens: TokenStream, prefix: &[String], found: &mut Vec<NamedPath>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(name) => {
                let line = name.span().start().line;
                path(name.to_string(), line, prefix, &mut tokens, found);
            }
            TokenTree::Punct(star) if star.as_char() == '*' && !prefix.is_empty() => {
                let line = star.span().start().line;
                found.push(NamedPath { names: [prefix, &["*".to_owned()]].concat(), line });
            }
            TokenTree::Group(group) => scan(without_tests(group.stream()), &[], found),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

/// Reads the rest of a path that starts with `first`.
fn path(
    first: String,
    mut line: usize,
    prefix: &[String],
    tokens: &mut Peekable<IntoIter>,
    found: &mut Vec<NamedPath>,
) {
    let mut names = [prefix, &[first]].concat();
    while takes_colons(tokens) {
        match tokens.peek() {
            Some(TokenTree::Ident(name)) => {
                line = name.span().start().line;
                names.push(name.to_string());
            }
            Some(TokenTree::Punct(star)) if star.as_char() == '*' => {
                line = star.span().start().line;
                names.push("*".to_owned());
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                scan(group.stream(), &names, found);
                tokens.next();
                return;
            }
            // A turbofish: what it holds is read by the caller.
            _ => break,
        }
        tokens.next();
    }
    if names.len() > 1 {
        found.push(NamedPath { names, line });
    }
}

/// Takes `::` if it comes next.
fn takes_colons(tokens: &mut Peekable<IntoIter>) -> bool {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':');
    let mut ahead = tokens.clone();
    let taken = ahead.next().is_some_and(|token| is_colon(&token))
        && ahead.next().is_some_and(|token| is_colon(&token));
    if taken {
        *tokens = ahead;
    }
    taken
}

/// Leaves out each item that `#[cfg(test)]` stands before: all up to its braces or its semicolon.
fn without_tests(tokens: TokenStream) -> TokenStream {
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let is_hash = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == '#');
        if is_hash && matches!(tokens.peek(), Some(TokenTree::Group(group)) if is_cfg_test(group.stream())) {
            tokens.find(|token| match token {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                TokenTree::Punct(punct) => punct.as_char() == ';',
                TokenTree::Ident(_) | TokenTree::Literal(_) => false,
            });
        } else {
            kept.push(token);
        }
    }
    kept.into_iter().collect()
}

fn is_cfg_test(attribute: TokenStream) -> bool {
    let mut tokens = attribute.into_iter();
    matches!(tokens.next(), Some(TokenTree::Ident(name)) if name == "cfg")
        && matches!(tokens.next(), Some(TokenTree::Group(group)) if group.stream().to_string() == "test")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        let found = named_in(source.parse().unwrap());
        found.into_iter().map(|path| path.names.join("::")).collect()
    }

    #[test]
    fn braces_are_spread_out() {
        assert_eq!(
            paths("use std::{fs, net::{TcpStream, *}, time::Duration};"),
            ["std::fs", "std::net::TcpStream", "std::net::*", "std::time::Duration"]
        );
    }

    #[test]
    fn paths_in_expressions_types_and_macros_are_found() {
        let source =
            "fn f(a: Vec<std::fs::File>) { println!(\"{:?}\", std::thread::current()); x::<a::B>(); }";
        assert_eq!(paths(source), ["std::fs::File", "std::thread::current", "a::B"]);
    }

    #[test]
    fn comments_text_and_tests_name_nothing() {
        let source = "
            //! std::fs
            /// std::fs
            const A: &str = \"std::fs\"; // std::fs
            #[cfg(test)] use std::net;
            #[cfg(test)] mod tests { use std::thread; }
            #[cfg(unix)] use std::env;
            mod inner { #[cfg(test)] fn f() { std::fs::read(); } }
        ";
        assert_eq!(paths(source), ["std::env"]);
    }

    #[test]
    fn a_line_is_that_of_the_last_name() {
        let found = named_in("use std::{\n    fs,\n    net,\n};".parse().unwrap());
        assert_eq!(found.iter().map(|path| path.line).collect::<Vec<_>>(), [2, 3]);
    }
}
