//! What a measured job runs: this program in its mode `emit`.

use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

/// `emit bytes WRITE TOTAL` writes lines in pieces of `WRITE` bytes; `emit lines PER_SECOND COUNT` writes lines that
/// begin with their time in microseconds.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let [mode, first, second] = arguments else { anyhow::bail!("emit bytes WRITE TOTAL, or emit lines RATE COUNT") };
    let (first, second): (u64, u64) = (first.parse()?, second.parse()?);
    match mode.as_str() {
        "bytes" => bytes(usize::try_from(first)?, second),
        "lines" => lines(first, second),
        _ => anyhow::bail!("emit bytes or emit lines"),
    }
}

fn bytes(write_bytes: usize, total: u64) -> anyhow::Result<()> {
    let line = b"the quick brown fox jumps over the lazy dog, and eighty bytes make one such line\n";
    let piece: Vec<u8> = line.iter().copied().cycle().take(write_bytes).collect();
    let mut out = std::io::stdout().lock();
    let mut left = total;
    while left > 0 {
        let now = left.min(write_bytes as u64);
        out.write_all(&piece[..usize::try_from(now)?])?;
        out.flush()?;
        left -= now;
    }
    Ok(())
}

fn lines(per_second: u64, count: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut out = std::io::stdout().lock();
    for number in 0..count {
        let due = Duration::from_micros(number * 1_000_000 / per_second);
        if let Some(wait) = due.checked_sub(began.elapsed()) {
            std::thread::sleep(wait);
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).context("a clock before 1970")?.as_micros();
        writeln!(out, "{at} a line of ordinary length for the log of an ordinary build step")?;
        out.flush()?;
    }
    Ok(())
}
