//! Numbers of calls: what makes a request of a job the same one when it comes again.
//!
//! A command of a job makes a number for itself ([`crate::message::Ask::call`]). Where it comes to more than one request, or
//! where one number may stand for more than one question, each gets a number that follows from the command's own: whoever
//! sends it again finds the same. The design: `docs/design/024-what-a-build-costs.md`.

/// The number of a request that a call makes, by what tells it from the call's others: its place, or its question.
#[must_use]
pub fn derived(call: [u8; 16], from: &[u8]) -> [u8; 16] {
    let hash = blake3::Hasher::new().update(&call).update(from).finalize();
    let mut number = [0; 16];
    number.copy_from_slice(&hash.as_bytes()[..16]);
    number
}

/// The number of a call's request at this place, from 0.
#[must_use]
pub fn part(call: [u8; 16], place: u64) -> [u8; 16] {
    derived(call, &place.to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_part_of_the_same_call_has_the_same_number_and_no_other_has_it() {
        let numbers = [part([1; 16], 0), part([1; 16], 1), part([2; 16], 0), [1; 16], [2; 16]];
        let distinct: std::collections::BTreeSet<_> = numbers.iter().collect();
        assert_eq!(distinct.len(), numbers.len());
        assert_eq!(part([1; 16], 1), part([1; 16], 1));
    }
}
