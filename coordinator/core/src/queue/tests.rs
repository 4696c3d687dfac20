//! What is filed, against a walk over all lines.

use proptest::prelude::*;

use super::*;
use crate::place::has_tag;

type Tag = (String, String);

fn tags(bits: u8) -> Vec<Tag> {
    let all = [("os", "linux"), ("gpu", "*"), ("gpu", "big"), ("os", "none")];
    let some = all.into_iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1);
    some.map(|(_, (name, value))| (name.to_owned(), value.to_owned())).collect()
}

fn shape(bits: u16) -> Shape {
    Shape {
        queue: ["q", "r"][usize::from(bits & 1)].to_owned(),
        trust: if bits & 2 == 0 { Trust::Trusted } else { Trust::Untrusted },
        zone: (bits & 4 != 0).then(|| ["a", "b"][usize::from(bits >> 3 & 1)].to_owned()),
        image: bits & 16 != 0,
        tags: tags(u8::try_from(bits >> 5 & 15).unwrap()),
        resources: Resources { cpu_millis: u64::from(bits >> 9 & 3), memory_bytes: 0 },
    }
}

fn id(n: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    bytes
}

/// The head that is next of all lines that can be taken.
fn walked(queue: &mut Queue, takes: impl Fn(&Shape) -> bool) -> Option<Place> {
    let mut best = None;
    for line in queue.lines() {
        if queue.shape(line).is_some_and(&takes) {
            best = best.into_iter().chain(queue.head(line)).min();
        }
    }
    best
}

proptest! {
    #[test]
    fn a_freed_agent_finds_what_a_walk_over_all_lines_finds(
        steps in proptest::collection::vec((any::<u16>(), any::<u16>(), 0_u8..8), 1..200),
        asks in proptest::collection::vec((any::<u16>(), any::<bool>()), 1..8),
    ) {
        let mut queue = Queue::default();
        let held = tags(0b0101);
        queue.hold_tags(&[], &held);
        let (mut queued, mut epoch) = (Vec::<(ShapeId, Ticket)>::new(), 0);
        for (number, (bits, other, kind)) in (0_u16..).zip(steps) {
            match kind {
                0 | 1 if !queued.is_empty() => {
                    let (line, ticket) = queued.swap_remove(usize::from(other) % queued.len());
                    queue.remove(line, ticket);
                }
                2 => {
                    epoch += 1;
                    queue.served(BuildId::from_bytes(id(other % 5)), epoch);
                }
                _ => {
                    let build = BuildId::from_bytes(id(other % 5));
                    let job = JobId::from_bytes(id(number));
                    let (priority, index) = (i64::from(other >> 8 & 1), u32::from(other >> 3));
                    let ticket = Ticket { priority, build, index, job, since: WallMs(1) };
                    queued.push((queue.push(shape(bits), 0, ticket), ticket));
                }
            }
            prop_assert_eq!(queue.check(&held.iter().map(|tag| (tag.clone(), 1)).collect()), Ok(()));
        }
        for (bits, few) in asks {
            let has = tags(u8::try_from(bits >> 4 & 15).unwrap());
            let opens = Opens { trust: Trust::Trusted, zone: "a", images: bits & 1 == 0, tags: &has };
            let room = u64::from(bits >> 1 & 3);
            let takes = |shape: &Shape| {
                shape.queue == "q"
                    && shape.trust == opens.trust
                    && shape.zone.as_ref().is_none_or(|zone| zone == "a")
                    && (opens.images || !shape.image)
                    && shape.resources.cpu_millis <= room
                    && shape.tags.iter().all(|tag| has_tag(&has, tag))
            };
            let expected = walked(&mut queue, takes);
            if few {
                // Whatever the number of files: by name, and one by one.
                prop_assert!(opens.labels(usize::MAX).is_some() && opens.labels(0).is_none());
            }
            queue.settle("q", &opens);
            let found = queue.best("q", &opens, |_, line| queue.shape(line).is_some_and(takes));
            prop_assert_eq!(found, expected);
            let named: Vec<Label> = opens.labels(usize::MAX).unwrap_or_default();
            let filed = queue.postings.get("q").into_iter().flat_map(BTreeMap::keys);
            for label in filed {
                prop_assert_eq!(opens.may(label), named.contains(label), "{:?}", label);
            }
        }
    }
}
