//! The fuzz entry: any bytes at all, through everything that foreign text goes through.

use crate::compile::{Inputs, check, compile_with};

/// Compiles what the bytes say, leniently and strictly, and renders what was found. Must never panic.
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let env = [("A".to_owned(), "alpha".to_owned()), ("é".to_owned(), "$A".to_owned())];
    let strict = compile_with(&text, "fuzz.yml", &Inputs { build_env: &env, ..Inputs::default() });
    let _ = strict.render(&text);
    let _ = check(&text, "fuzz.yml").render(&text);
}
