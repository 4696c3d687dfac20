//! A recipe: everything that decides a step's result, as a text of which the key is the digest.
//!
//! The text is canonical: a first line that names the format, then a line for each component, sorted by name:
//! `name TAB value LF`. A backslash, a tab and a line feed within either are `\\`, `\t` and `\n`. Of a secret there is a
//! version, never its value (I6).

mod diff;

use std::collections::BTreeMap;

use windlass_protocol::Digest;
use windlass_protocol::limits::REUSE_RECIPE_MAX_BYTES;

pub use self::diff::{Difference, Reads, diff};

/// The text's first line. What changes the meaning of a component changes this number, and with it every key.
const FORMAT: &str = "windlass step key 1\n";

/// The component that is the digest of the tree of all that is laid out.
pub(super) const INPUTS: &str = "inputs";

/// The component that is the digest of what the pool's machines say of themselves.
pub(crate) const SYSTEM: &str = "host.system";

/// What a step's result depends on, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recipe {
    components: BTreeMap<String, String>,
}

/// Why bytes are no recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRecipe {
    /// It begins otherwise.
    #[error("it is no recipe of this version")]
    Format,
    /// It is not the one encoding of what it says.
    #[error("a line of it is not as it would be written")]
    Line,
    /// It is larger than any that is written.
    #[error("it has more than {REUSE_RECIPE_MAX_BYTES} bytes")]
    TooLarge,
}

impl Recipe {
    /// Adds a component, or gives it another value.
    pub(super) fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.components.insert(name.into(), value.into());
    }

    /// What a component is.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.components.get(name).map(String::as_str)
    }

    /// All components, by name.
    pub fn components(&self) -> impl Iterator<Item = (&str, &str)> {
        self.components.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The text.
    ///
    /// # Errors
    /// [`BadRecipe::TooLarge`].
    pub fn encode(&self) -> Result<String, BadRecipe> {
        let mut text = FORMAT.to_owned();
        for (name, value) in &self.components {
            escape(name, &mut text);
            text.push('\t');
            escape(value, &mut text);
            text.push('\n');
        }
        if text.len() > REUSE_RECIPE_MAX_BYTES { Err(BadRecipe::TooLarge) } else { Ok(text) }
    }

    /// Reads a text that [`Self::encode`] has written, and no other.
    ///
    /// # Errors
    /// [`BadRecipe`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecipe> {
        if bytes.len() > REUSE_RECIPE_MAX_BYTES {
            return Err(BadRecipe::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| BadRecipe::Format)?;
        let mut components = BTreeMap::new();
        for line in text.strip_prefix(FORMAT).ok_or(BadRecipe::Format)?.split_inclusive('\n') {
            let line = line.strip_suffix('\n').ok_or(BadRecipe::Line)?;
            let (name, value) = line.split_once('\t').ok_or(BadRecipe::Line)?;
            let (name, value) = (plain(name)?, plain(value)?);
            if components.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err(BadRecipe::Line);
            }
            components.insert(name, value);
        }
        Ok(Self { components })
    }
}

/// The key of a recipe's text: its BLAKE3, in a domain of its own, so that no blob has the name of a key.
#[must_use]
pub fn key_of(text: &str) -> Digest {
    Digest::of(format!("key of {text}").as_bytes())
}

fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

fn plain(text: &str) -> Result<String, BadRecipe> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '\\' => match characters.next() {
                Some('\\') => '\\',
                Some('t') => '\t',
                Some('n') => '\n',
                Some(_) | None => return Err(BadRecipe::Line),
            },
            '\t' => return Err(BadRecipe::Line),
            other => other,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_recipe_s_text_and_its_key_are_frozen() {
        let mut recipe = Recipe::default();
        recipe.set("command", "make\ttest\nexit \\$?");
        recipe.set("env.A", "1");
        recipe.set(INPUTS, "00");
        let text = recipe.encode().unwrap();
        assert_eq!(text, "windlass step key 1\ncommand\tmake\\ttest\\nexit \\\\$?\nenv.A\t1\ninputs\t00\n");
        assert_ne!(key_of(&text), Digest::of(text.as_bytes()), "no blob has a key's name");
        assert_eq!(key_of(&text).to_hex(), "198c2f25522f2b8056a16160b9696d335a64aaa5865b8be05ce68eca06fd61ae");
    }

    #[test]
    fn what_no_recipe_would_say_is_refused() {
        let with = |rest: &str| Recipe::decode(format!("{FORMAT}{rest}").as_bytes());
        assert_eq!(with("a\t1\nb\t2\n").map(|it| it.components.len()), Ok(2));
        for bad in ["b\t1\na\t1\n", "a\t1\na\t1\n", "a\n", "a\t1", "a\t1\t2\n", "a\t\\x\n", "a\t\\\n", "\n"] {
            assert_eq!(with(bad), Err(BadRecipe::Line), "{bad:?}");
        }
        for bad in [&b""[..], b"windlass step key 2\n", b"windlass step key 1\n\xff\t\n"] {
            assert_eq!(Recipe::decode(bad), Err(BadRecipe::Format), "{bad:?}");
        }
        let large = vec![b'a'; REUSE_RECIPE_MAX_BYTES + 1];
        assert_eq!(Recipe::decode(&large), Err(BadRecipe::TooLarge));
        let mut recipe = Recipe::default();
        recipe.set("command", "x".repeat(REUSE_RECIPE_MAX_BYTES));
        assert_eq!(recipe.encode(), Err(BadRecipe::TooLarge));
    }

    proptest! {
        #[test]
        fn every_recipe_has_one_text_and_every_text_is_of_one_recipe(
            components in proptest::collection::btree_map("[a-z.\\\\\t\n]{0,6}", ".{0,12}", 0..6),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        ) {
            let recipe = Recipe { components };
            let text = recipe.encode().unwrap();
            prop_assert_eq!(Recipe::decode(text.as_bytes()).unwrap(), recipe);
            let mut bytes = text.into_bytes();
            for (at, to) in flips {
                let at = at.index(bytes.len());
                bytes[at] = to;
            }
            if let Ok(decoded) = Recipe::decode(&bytes) {
                prop_assert_eq!(decoded.encode().unwrap().into_bytes(), bytes);
            }
        }
    }
}
