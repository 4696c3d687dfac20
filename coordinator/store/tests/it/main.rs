//! The store's tests: one suite over every implementation, and what a crash and a full disk leave of SQLite's.

#[cfg(test)]
mod contract;
#[cfg(test)]
mod durability;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod rows;
#[cfg(test)]
mod shim;
