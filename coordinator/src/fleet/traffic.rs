//! Bytes between the coordinator and each zone, as they go over the wire: QUIC's packets in UDP, what is sent again
//! included. A zone is its agents' certificates' one; what nobody has joined for yet belongs to none and is not counted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn::Connection;

/// Bytes of one zone, seen from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZoneBytes {
    /// Sent by the coordinator to the zone's agents.
    pub into: u64,
    /// Received by the coordinator from them.
    pub out_of: u64,
}

/// What all zones have sent and received; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Traffic(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    /// Of connections that are over.
    past: BTreeMap<String, ZoneBytes>,
    /// Those that are open, which count for themselves.
    open: BTreeMap<u64, (String, Connection)>,
    next: u64,
}

/// A connection whose bytes count for its zone; when this is dropped, they stay.
#[derive(Debug)]
pub(super) struct Metered {
    traffic: Traffic,
    number: u64,
}

impl Traffic {
    /// Counts a connection from now on.
    pub(super) fn meter(&self, zone: &str, connection: &Connection) -> Metered {
        let mut counted = self.lock();
        counted.next += 1;
        let number = counted.next;
        counted.open.insert(number, (zone.to_owned(), connection.clone()));
        drop(counted);
        Metered { traffic: self.clone(), number }
    }

    /// Each zone's bytes so far. They never fall.
    pub(super) fn totals(&self) -> BTreeMap<String, ZoneBytes> {
        let counted = self.lock();
        let mut totals = counted.past.clone();
        for (zone, connection) in counted.open.values() {
            add(&mut totals, zone, connection);
        }
        totals
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let mut counted = self.traffic.lock();
        if let Some((zone, connection)) = counted.open.remove(&self.number) {
            add(&mut counted.past, &zone, &connection);
        }
    }
}

fn add(totals: &mut BTreeMap<String, ZoneBytes>, zone: &str, connection: &Connection) {
    let stats = connection.stats();
    let bytes = totals.entry(zone.to_owned()).or_default();
    bytes.into += stats.udp_tx.bytes;
    bytes.out_of += stats.udp_rx.bytes;
}
