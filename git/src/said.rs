//! What git's words tell of whose fault it is. They are English (`LC_ALL=C`).

/// Of a network, or a server that has too much to do.
const TRANSIENT: [&str; 12] = [
    "Could not resolve host",
    "Couldn't connect to server",
    "Failed to connect",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Operation timed out",
    "early EOF",
    "The remote end hung up unexpectedly",
    "unexpected disconnect",
    "The requested URL returned error: 5",
    "The requested URL returned error: 429",
];

/// Of a server, of the way to it, or of whoever asks: another mirror would hear the same.
const ANSWERS: [&str; 17] = [
    "couldn't find remote ref",
    "not our ref",
    "unadvertised object",
    "remote error",
    "Authentication failed",
    "could not read Username",
    "could not read Password",
    "Permission denied",
    "Host key verification failed",
    "not found",
    "does not appear to be a git repository",
    "Could not read from remote repository",
    "The requested URL returned error",
    "unable to access",
    "not allowed",
    "dubious ownership",
    "No space left on device",
];

fn has_any(said: &str, words: &[&str]) -> bool {
    words.iter().any(|words| said.contains(words))
}

/// Whether the same may go well in a moment: what git says of a network, and nothing of what it says of the question.
#[must_use]
pub fn is_transient(said: &str) -> bool {
    has_any(said, &TRANSIENT)
}

/// Whether what failed in a mirror may be the mirror's own fault: neither a network's nor an answer to the question. Whoever
/// has the mirror locked makes it anew then, once.
#[must_use]
pub fn may_be_damage(said: &str) -> bool {
    !is_transient(said) && !has_any(said, &ANSWERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_of_a_server_is_taken_for_damage() {
        for (said, damage) in [
            ("fatal: unable to access 'x': Could not resolve host: a", false),
            ("fatal: couldn't find remote ref x", false),
            ("fatal: remote error: upload-pack: not our ref 0123", false),
            ("error: Server does not allow request for unadvertised object 0123", false),
            ("fatal: '/x' does not appear to be a git repository", false),
            ("fatal: transport 'file' not allowed", false),
            ("fatal: unexpected line in packed-refs: 0123", true),
            ("fatal: bad object refs/heads/main", true),
            ("error: cannot lock ref 'refs/heads/main': unable to resolve reference 'refs/heads/main'", true),
            ("error: object file objects/01/23 is empty", true),
        ] {
            assert_eq!(may_be_damage(said), damage, "{said}");
        }
    }
}
