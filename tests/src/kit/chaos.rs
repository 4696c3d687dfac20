//! Killing things again and again while something else must come to its end.

use std::time::Duration;

use anyhow::Result;

use super::client::Client;

/// A stream of numbers from a seed, so that a run can be told from another; SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Milliseconds between two bounds.
    pub const fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }

    /// Bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(count);
        bytes
    }
}

/// Does `strike` again and again, with pauses between, until a build has ended; gives the number of strikes.
///
/// # Errors
/// Those of `strike`.
pub async fn until_final(
    client: &Client,
    build: &str,
    dice: &mut Dice,
    pause: (u64, u64),
    mut strike: impl AsyncFnMut(&mut Dice) -> Result<()>,
) -> Result<u32> {
    let mut strikes = 0;
    loop {
        let pause = dice.millis(pause.0, pause.1);
        let ended = client.wait(build, "the build's end", pause, super::build::Build::is_final);
        // A build that has not ended within the pause is what the strikes are for.
        if ended.await.is_ok() {
            return Ok(strikes);
        }
        strike(dice).await?;
        strikes += 1;
    }
}
