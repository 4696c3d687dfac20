//! Whether the agents that may run a step are the same to its result, and in what they are not.

use std::collections::BTreeMap;

use windlass_protocol::HostFacts;
use windlass_protocol::limits::FINGERPRINT_TOLD_MAX_CHARS;

use crate::row::Hosts;

/// What these agents agree on. Each is compared with the first: one that says nothing agrees with nobody.
pub(crate) fn agreed<'a>(said: impl Iterator<Item = (&'a str, &'a HostFacts)>) -> Hosts {
    let said: Vec<(&str, &HostFacts)> = said.collect();
    let Some(((first, one), others)) = said.split_first() else {
        let nobody = || "no agent that may run it has said what its machine is".to_owned();
        return Hosts { platform: Err(nobody()), system: Err(nobody()), hooks: Err(nobody()) };
    };
    let silent = |what: &str, is_silent: &dyn Fn(&HostFacts) -> bool| {
        let found = said.iter().find(|(_, facts)| is_silent(facts));
        found.map(|(agent, _)| format!("the agent {agent} does not say {what}"))
    };
    let other = |differs: &dyn Fn(&HostFacts) -> bool| others.iter().find(|(_, facts)| differs(facts));
    let platform = match silent("what images run on its machine", &|facts| facts.platform.is_empty()) {
        Some(why) => Err(why),
        None => match other(&|facts| facts.platform != one.platform) {
            None => Ok(one.platform.clone()),
            Some((agent, facts)) => Err(format!(
                "it may run on {} ({first}) and on {} ({agent}): ask for one of them by a tag",
                one.platform, facts.platform
            )),
        },
    };
    let system = match silent("what its system is", &|facts| facts.system.is_empty()) {
        Some(why) => Err(why),
        None => match other(&|facts| facts.system != one.system) {
            None => Ok(one.system.clone()),
            Some((agent, facts)) => Err(difference((first, &one.system), (agent, &facts.system))),
        },
    };
    let hooks = match silent("what its hooks are", &|facts| facts.hooks.is_none()) {
        Some(why) => Err(why),
        None => match other(&|facts| facts.hooks != one.hooks) {
            None => one.hooks.ok_or_else(String::new),
            Some((agent, _)) => Err(format!("the agents {first} and {agent} have different hooks")),
        },
    };
    Hosts { platform, system, hooks }
}

/// The first thing that two machines say otherwise.
fn difference((one, said): (&str, &str), (other, says): (&str, &str)) -> String {
    let lines = |text: &'_ str| -> BTreeMap<String, String> {
        text.lines().filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    };
    let (said, says) = (lines(said), lines(says));
    let names = said.keys().chain(says.keys());
    let Some(name) = names.into_iter().find(|name| said.get(*name) != says.get(*name)) else {
        return format!("the agents {one} and {other} have different systems");
    };
    let cut = |text: Option<&String>| match text {
        Some(text) => format!("`{}`", text.chars().take(FINGERPRINT_TOLD_MAX_CHARS).collect::<String>()),
        None => "nothing".to_owned(),
    };
    let (said, says) = (cut(said.get(name)), cut(says.get(name)));
    format!("the agents {one} and {other} differ in `{name}`: {said} and {says}")
}

#[cfg(test)]
mod tests {
    use windlass_protocol::Digest;

    use super::*;

    fn facts(platform: &str, system: &str, hooks: Option<&[u8]>) -> HostFacts {
        HostFacts { platform: platform.to_owned(), system: system.to_owned(), hooks: hooks.map(Digest::of) }
    }

    #[test]
    fn agents_that_say_the_same_agree_and_each_difference_is_named() {
        let one = facts("linux/amd64", "os: linux\ncc --version: 12\n", Some(b""));
        let of = |other: &HostFacts| agreed([("a", &one), ("b", &one), ("c", other)].into_iter());
        let all = of(&one);
        assert_eq!(all.platform.as_deref(), Ok("linux/amd64"));
        assert_eq!((all.system, all.hooks), (Ok(one.system.clone()), Ok(Digest::of(b""))));
        let other = of(&facts("linux/arm64", "os: linux\ncc --version: 13\n", Some(b"x")));
        assert_eq!(
            other.platform.unwrap_err(),
            "it may run on linux/amd64 (a) and on linux/arm64 (c): ask for one of them by a tag"
        );
        assert_eq!(other.system.unwrap_err(), "the agents a and c differ in `cc --version`: `12` and `13`");
        assert_eq!(other.hooks.unwrap_err(), "the agents a and c have different hooks");
        let more = of(&facts("linux/amd64", "os: linux\n", Some(b"")));
        assert_eq!(more.system.unwrap_err(), "the agents a and c differ in `cc --version`: `12` and nothing");
        assert!(more.hooks.is_ok() && more.platform.is_ok(), "each by itself");
    }

    #[test]
    fn who_says_nothing_agrees_with_nobody_not_even_with_another_silent_one() {
        let silent = HostFacts::default();
        for said in [vec![("a", &silent)], vec![("a", &silent), ("b", &silent)]] {
            let hosts = agreed(said.into_iter());
            assert_eq!(hosts.system.unwrap_err(), "the agent a does not say what its system is");
            assert!(hosts.platform.is_err() && hosts.hooks.is_err());
        }
        let nobody = agreed(std::iter::empty());
        assert_eq!(nobody.system.unwrap_err(), "no agent that may run it has said what its machine is");
    }
}
