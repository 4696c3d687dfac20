//! Globs of paths (reference 20.1), and the patterns of branches (11.2).
//!
//! A glob becomes a small automaton, whose states are followed all at once: a match takes the product of both lengths at
//! most, whatever the pattern. Alternatives are branches of it, not copies, so that they cannot multiply.

use windlass_protocol::limits::{GLOB_DEPTH_MAX, GLOB_MAX_BYTES};

/// What paths of artifacts are looked for by: `*` is any run of characters, `/` too, and nothing else means anything
/// (reference 20.3). Without one it is the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathQuery {
    pattern: String,
}

impl PathQuery {
    /// Reads a query. `./a` and `a` are the same to a person.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { pattern: text.strip_prefix("./").unwrap_or(text).to_owned() }
    }

    /// Whether it means this path.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        runs_match(&self.pattern, path)
    }
}

/// A pattern for whole paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    states: Vec<State>,
}

/// What one place of a pattern takes, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// This character, then the next state.
    Character(char),
    /// One of these, or none of these; never `/` by exclusion.
    Class { negated: bool, characters: Vec<char> },
    /// `?`
    One,
    /// Any character, or any but `/`, and stays; goes on without one.
    Run { slash: bool },
    /// Goes on at each of these without a character.
    Fork(Vec<usize>),
    /// The end of the pattern.
    End,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GlobError {
    /// One sentence, without a full stop.
    pub message: String,
    /// Byte in the pattern.
    pub at: usize,
}

impl Glob {
    /// Reads a pattern. A `~` at its beginning is left as it is: whose home it means is known where files are.
    ///
    /// # Errors
    /// A bracket or brace is not closed, a backslash stands at the end, or the pattern is larger than it may be.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.len() > GLOB_MAX_BYTES {
            let message = format!("the pattern has {} bytes; {GLOB_MAX_BYTES} are the most", text.len());
            return Err(GlobError { message, at: 0 });
        }
        let mut parser = Parser { text, at: 0, states: Vec::new(), depth: 0, boundary: true };
        parser.sequence()?;
        if parser.at < text.len() {
            return Err(parser.error("a `}` closes nothing"));
        }
        parser.states.push(State::End);
        Ok(Self { text: text.to_owned(), states: parser.states })
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it describes the whole path. In time of the product of both lengths at most.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let mut endless = u64::MAX;
        self.matches_within(path, &mut endless).unwrap_or(false)
    }

    /// [`Self::matches`], for as many looks at states as are left; `None` where they do not suffice.
    pub fn matches_within(&self, path: &str, left: &mut u64) -> Option<bool> {
        let mut now = Set::new(self.states.len());
        let mut then = Set::new(self.states.len());
        self.enter(0, &mut now);
        for character in path.chars() {
            *left = left.checked_sub(now.members.len() as u64 + 1)?;
            then.clear();
            for &at in &now.members {
                let (goes, stays) = self.takes(at, character);
                if goes {
                    self.enter(at + 1, &mut then);
                }
                if stays {
                    self.enter(at, &mut then);
                }
            }
            if then.members.is_empty() {
                return Some(false);
            }
            std::mem::swap(&mut now, &mut then);
        }
        Some(now.holds(self.states.len() - 1))
    }

    /// Whether a state takes a character and goes on, or takes it and stays.
    fn takes(&self, at: usize, character: char) -> (bool, bool) {
        match &self.states[at] {
            State::Character(wanted) => (*wanted == character, false),
            State::One => (character != '/', false),
            State::Class { negated: false, characters } => (characters.contains(&character), false),
            State::Class { negated: true, characters } => (character != '/' && !characters.contains(&character), false),
            State::Run { slash } => (false, *slash || character != '/'),
            State::Fork(_) | State::End => (false, false),
        }
    }

    /// Enters a state and all that follow it without a character.
    fn enter(&self, at: usize, set: &mut Set) {
        let mut entered = vec![at];
        while let Some(at) = entered.pop() {
            if set.insert(at) {
                match &self.states[at] {
                    State::Run { .. } => entered.push(at + 1),
                    State::Fork(ways) => entered.extend(ways),
                    State::Character(_) | State::Class { .. } | State::One | State::End => {}
                }
            }
        }
    }
}

/// States, each once, in the order in which they were entered.
struct Set {
    members: Vec<usize>,
    present: Vec<bool>,
}

impl Set {
    fn new(states: usize) -> Self {
        Self { members: Vec::with_capacity(states), present: vec![false; states] }
    }

    fn insert(&mut self, at: usize) -> bool {
        let fresh = !std::mem::replace(&mut self.present[at], true);
        if fresh {
            self.members.push(at);
        }
        fresh
    }

    fn holds(&self, at: usize) -> bool {
        self.present[at]
    }

    fn clear(&mut self) {
        self.members.drain(..).for_each(|at| self.present[at] = false);
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    states: Vec<State>,
    depth: usize,
    /// A name of the path begins here, as far as can be told.
    boundary: bool,
}

impl Parser<'_> {
    fn error(&self, message: impl Into<String>) -> GlobError {
        GlobError { message: message.into(), at: self.at }
    }

    fn accept(&mut self, prefix: &str) -> bool {
        let found = self.text[self.at..].starts_with(prefix);
        if found {
            self.at += prefix.len();
        }
        found
    }

    fn take(&mut self) -> Option<char> {
        let character = self.text[self.at..].chars().next()?;
        self.at += character.len_utf8();
        Some(character)
    }

    /// To the end, or within braces up to the `,` or `}`.
    fn sequence(&mut self) -> Result<(), GlobError> {
        loop {
            let rest = &self.text[self.at..];
            match rest.chars().next() {
                None | Some('}') => return Ok(()),
                Some(',') if self.depth > 0 => return Ok(()),
                Some('*') => {
                    let begin = self.at;
                    while self.accept("*") {}
                    let deep = self.at - begin > 1;
                    if deep && self.boundary && self.accept("/") {
                        // Where a name begins, `**/` is any folders, none included: `a/**/b` is also `a/b`.
                        let run = self.states.len() + 1;
                        self.states.push(State::Fork(vec![run, run + 2]));
                        self.states.push(State::Run { slash: true });
                        self.states.push(State::Character('/'));
                        continue;
                    }
                    self.states.push(State::Run { slash: deep });
                }
                Some('?') => {
                    self.at += 1;
                    self.states.push(State::One);
                }
                Some('[') => self.class()?,
                Some('{') => self.braces()?,
                Some('\\') => {
                    self.at += 1;
                    let Some(character) = self.take() else { return Err(self.error("nothing follows the backslash")) };
                    self.states.push(State::Character(character));
                }
                Some(character) => {
                    self.at += character.len_utf8();
                    self.states.push(State::Character(character));
                    self.boundary = character == '/';
                    continue;
                }
            }
            self.boundary = false;
        }
    }

    /// No ranges: a `-` is itself.
    fn class(&mut self) -> Result<(), GlobError> {
        let begin = self.at;
        self.at += 1;
        let negated = self.accept("^");
        let mut characters = Vec::new();
        loop {
            match self.take() {
                Some(']') => break,
                Some('\\') => characters.extend(self.take()),
                Some(character) => characters.push(character),
                None => return Err(GlobError { message: "the `[` is not closed".to_owned(), at: begin }),
            }
        }
        if characters.is_empty() {
            return Err(GlobError { message: "the brackets are empty".to_owned(), at: begin });
        }
        self.states.push(State::Class { negated, characters });
        Ok(())
    }

    fn braces(&mut self) -> Result<(), GlobError> {
        let begin = self.at;
        self.depth += 1;
        if self.depth > GLOB_DEPTH_MAX {
            return Err(self.error(format!("braces are nested deeper than {GLOB_DEPTH_MAX}")));
        }
        let fork = self.states.len();
        self.states.push(State::Fork(Vec::new()));
        let (mut ways, mut ends) = (Vec::new(), Vec::new());
        let boundary = self.boundary;
        loop {
            self.at += 1;
            self.boundary = boundary;
            ways.push(self.states.len());
            self.sequence()?;
            ends.push(self.states.len());
            self.states.push(State::Fork(Vec::new()));
            match self.text[self.at..].chars().next() {
                Some(',') => {}
                Some(_) => break,
                None => return Err(GlobError { message: "the `{` is not closed".to_owned(), at: begin }),
            }
        }
        self.at += 1;
        self.depth -= 1;
        let after = self.states.len();
        self.states[fork] = State::Fork(ways);
        for end in ends {
            self.states[end] = State::Fork(vec![after]);
        }
        Ok(())
    }
}

/// Whether a step with these `branches` runs on a branch: patterns are split at white space.
#[must_use]
pub fn branch_matches(patterns: &str, branch: &str) -> bool {
    branches_match(patterns.split_whitespace(), branch)
}

/// The same for a list of patterns: one that is positive matches, or there is none, and none that is negative does.
#[must_use]
pub fn branches_match<'a>(patterns: impl IntoIterator<Item = &'a str>, branch: &str) -> bool {
    let (mut positive, mut matched) = (false, false);
    for pattern in patterns {
        if let Some(pattern) = pattern.strip_prefix('!') {
            if runs_match(pattern, branch) {
                return false;
            }
        } else {
            positive = true;
            matched |= runs_match(pattern, branch);
        }
    }
    matched || !positive
}

/// `*` is any run of characters, `/` too; everything else is itself.
fn runs_match(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        // The leftmost place leaves the most for what follows.
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// What makes a pattern of a path. A path without any of them is looked at by itself: nothing around it is.
const WILD: [char; 5] = ['*', '?', '[', '{', '\\'];

/// Whether a path is a pattern, and not one file.
#[must_use]
pub fn is_pattern(path: &str) -> bool {
    path.contains(WILD)
}

/// The folder below which everything lies that a pattern can mean.
#[must_use]
pub fn folder_of(pattern: &str) -> &str {
    let plain = pattern.find(WILD).unwrap_or(pattern.len());
    let plain = pattern.get(..plain).unwrap_or_default();
    match plain.rfind('/') {
        Some(0) => "/",
        Some(end) => plain.get(..end).unwrap_or_default(),
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn globs_match_as_the_reference_says() {
        for (pattern, yes, no) in [
            ("a", vec!["a"], vec!["", "b", "aa", "a/"]),
            ("?", vec!["a", "é"], vec!["", "/", "ab"]),
            ("*.go", vec!["a.go", ".go"], vec!["a/b.go", "a.gox"]),
            ("**.go", vec!["a.go", "a/b.go", "a/b/c.go"], vec!["a.py"]),
            ("**/*.go", vec!["a.go", "a/b.go", "a/b/c.go"], vec!["a.py"]),
            ("a/**/b", vec!["a/b", "a/x/b", "a/x/y/b"], vec!["ab", "a/xb", "xa/b"]),
            ("a/**", vec!["a/", "a/x", "a/x/y"], vec!["a", "b/a"]),
            ("a**b", vec!["ab", "axb", "a/b", "a/x/b"], vec!["a", "b"]),
            ("a/**/**/b", vec!["a/b", "a/x/b"], vec!["ab"]),
            ("{a,b,}c", vec!["ac", "bc", "c"], vec!["abc", "a"]),
            ("{a,b/*,{c,d}e}", vec!["a", "b/x", "ce", "de"], vec!["b/x/y", "c", "e"]),
            ("{a, b}", vec!["a", " b"], vec!["b"]),
            ("{**/*.go,b}", vec!["a.go", "x/a.go", "b"], vec!["x/b"]),
            ("s/{**/a,b}", vec!["s/a", "s/x/a", "s/b"], vec!["a", "s/x/b"]),
            ("{a/**/b,c}", vec!["a/b", "a/x/b", "c"], vec!["a"]),
            ("[abc]x", vec!["ax", "cx"], vec!["dx", "x"]),
            ("[^abc]x", vec!["dx"], vec!["ax", "/x"]),
            ("[a-c]", vec!["a", "-", "c"], vec!["b"]),
            ("[0-9]", vec!["0", "-", "9"], vec!["5"]),
            ("\\*\\{\\\\", vec!["*{\\"], vec!["x{\\"]),
            ("a,b", vec!["a,b"], vec!["a"]),
            (".*", vec![".hidden", "."], vec!["a"]),
            ("*", vec!["a", ".hidden", ""], vec!["a/b"]),
            ("~/x", vec!["~/x"], vec!["/x"]),
            ("", vec![""], vec!["a"]),
        ] {
            let glob = Glob::parse(pattern).unwrap();
            for path in yes {
                assert!(glob.matches(path), "{pattern} {path}");
            }
            for path in no {
                assert!(!glob.matches(path), "{pattern} {path}");
            }
        }
    }

    #[test]
    fn broken_globs_are_refused_with_their_place() {
        for (pattern, at) in [("[abc", 0), ("x{a,b", 1), ("a}", 1), ("a\\", 2), ("x[]", 1)] {
            assert_eq!(Glob::parse(pattern).unwrap_err().at, at, "{pattern}");
        }
        assert!(Glob::parse(&"{".repeat(GLOB_DEPTH_MAX + 1)).is_err());
        assert!(Glob::parse(&"a".repeat(GLOB_MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn branch_patterns_match_as_the_reference_says() {
        for (patterns, yes, no) in [
            ("", vec!["main", ""], vec![]),
            ("main", vec!["main"], vec!["mainx", "xmain"]),
            ("main release/*", vec!["main", "release/1", "release/1/x", "release/"], vec!["release"]),
            ("*", vec!["a/b"], vec![]),
            ("!main", vec!["x"], vec!["main"]),
            ("feature/* !feature/x*", vec!["feature/y"], vec!["feature/xy", "main"]),
            ("!*-wip release-*", vec!["release-1"], vec!["release-1-wip", "main"]),
            ("a*b*c", vec!["abc", "aXbYc", "abbc"], vec!["ac", "acb"]),
            ("a*a", vec!["aa", "aba"], vec!["a"]),
            ("v[0-9]", vec!["v[0-9]"], vec!["v1"]),
        ] {
            for branch in yes {
                assert!(branch_matches(patterns, branch), "{patterns} {branch}");
            }
            for branch in no {
                assert!(!branch_matches(patterns, branch), "{patterns} {branch}");
            }
        }
        assert!(branches_match(["a b"], "a b"), "an item of a list is one pattern");
    }

    #[test]
    fn queries_of_artifacts_match_as_the_reference_says() {
        for (query, yes, no) in [
            ("log/*", vec!["log/a", "log/a/b", "log/"], vec!["log", "a/log/b"]),
            ("*", vec!["a", "a/b"], vec![]),
            ("**/*.txt", vec!["a/b.txt", "a/b/c.txt"], vec!["b.txt", "a/b.txt.gz"]),
            ("a.txt", vec!["a.txt"], vec!["b/a.txt", "aXtxt"]),
            ("./a.txt", vec!["a.txt"], vec!["./a.txt"]),
            ("[a]?{b}", vec!["[a]?{b}"], vec!["a1b"]),
        ] {
            let query = PathQuery::new(query);
            for path in yes {
                assert!(query.matches(path), "{query:?} {path}");
            }
            for path in no {
                assert!(!query.matches(path), "{query:?} {path}");
            }
        }
    }

    #[test]
    fn a_glob_of_many_runs_meets_a_long_path_in_no_time() {
        let glob = Glob::parse(&format!("{}x", "**a".repeat(300))).unwrap();
        assert!(!glob.matches(&"a".repeat(20_000)));
        let nested = Glob::parse(&"{a,{b,**}}".repeat(100)).unwrap();
        assert!(nested.matches(&"ab".repeat(2_000)));
    }

    proptest! {
        #[test]
        fn no_text_upsets_the_reader_and_an_escaped_path_matches_itself(text in ".{0,40}", path in "[a-z*?{},\\[\\]/ -]{0,30}") {
            if let Ok(glob) = Glob::parse(&text) {
                let _ = glob.matches(&path);
            }
            let escaped: String = path.chars().flat_map(|c| ['\\', c]).collect();
            prop_assert!(Glob::parse(&escaped).unwrap().matches(&path));
        }
    }

    #[test]
    fn only_the_folder_before_the_first_wildcard_is_looked_through() {
        let pairs = [("log/*.txt", "log"), ("**/*.go", ""), ("/tmp/x/**", "/tmp/x"), ("/a*", "/"), ("a/b/c", "a/b")];
        for (pattern, folder) in pairs {
            assert_eq!(folder_of(pattern), folder, "{pattern}");
        }
    }
}
