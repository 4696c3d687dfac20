//! Prints how much of a second version of an archive is new, cut as one string and cut along its structure. The figures in
//! docs/design/040 come from it.
//!
//! ```text
//! cargo run --release -p windlass-cache --example archive_ratios -- FIRST.tar SECOND.tar
//! ```
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::cast_precision_loss, reason = "a tool that prints figures")]

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use windlass_cache::{Cutter, Lane, Part, Splitter};
use windlass_protocol::Digest;

/// One string of bytes that is cut by itself.
struct Cut {
    cutter: Cutter,
    pending: Vec<u8>,
}

/// How an archive is cut.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    apart: bool,
    heads: usize,
    files: usize,
    split: bool,
}

type Chunks = HashMap<Digest, (usize, Lane)>;

impl Cut {
    fn cut(&mut self, least: usize, lane: Lane, into: &mut Vec<(Digest, usize, Lane)>) {
        let mut at = 0;
        while self.pending.len() - at >= least.max(1) {
            let n = self.cutter.first(&self.pending[at..]);
            into.push((Digest::of(&self.pending[at..at + n]), n, lane));
            at += n;
        }
        self.pending.drain(..at);
    }
}

fn chunks(path: &Path, way: Way) -> (Vec<(Digest, usize, Lane)>, u64, usize) {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 256 << 10];
    let mut splitter = Splitter::default();
    let mut cuts = Lane::ALL.map(|lane| Cut {
        cutter: Cutter::new(if lane == Lane::Files { way.files } else { way.heads }),
        pending: Vec::new(),
    });
    let (mut out, mut all, mut runs, mut last) = (Vec::new(), 0, 0, None);
    loop {
        let n = file.read(&mut buffer).unwrap();
        let mut take = |part: Part<'_>| {
            match part {
                Part::Bytes(lane, bytes) => {
                    let lane = if way.split { lane } else { Lane::Files };
                    runs += usize::from(last != Some(lane));
                    last = Some(lane);
                    cuts[lane as usize].pending.extend_from_slice(bytes);
                }
                Part::Apart if way.apart => cuts[2].cut(1, Lane::Files, &mut out),
                Part::Apart => {}
            }
            Ok::<(), Infallible>(())
        };
        if n == 0 {
            splitter.finish(&mut take).unwrap();
        } else {
            splitter.push(&buffer[..n], &mut take).unwrap();
        }
        all += n as u64;
        for lane in Lane::ALL {
            let least = if n == 0 { 1 } else { cuts[lane as usize].cutter.max_bytes() };
            cuts[lane as usize].cut(least, lane, &mut out);
        }
        if n == 0 {
            return (out, all, runs);
        }
    }
}

fn main() {
    let paths: Vec<_> = std::env::args().skip(1).collect();
    let way = |name, split, apart, heads: usize, files: usize| Way {
        name,
        apart,
        heads: heads << 10,
        files: files << 10,
        split,
    };
    println!(
        "| | chunks | runs | new | heads | times | files | MB/s |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for way in [
        way("one string, 128", false, false, 128, 128),
        way("one string, 64", false, false, 64, 64),
        way("apart, heads 128, files 128", true, false, 128, 128),
        way("heads 16, files 128", true, false, 16, 128),
        way("heads 16, files 128, large apart", true, true, 16, 128),
        way("heads 4, files 128, large apart", true, true, 4, 128),
        way("heads 16, files 64, large apart", true, true, 16, 64),
        way("heads 16, files 32, large apart", true, true, 16, 32),
    ] {
        let (first, ..) = chunks(paths[0].as_ref(), way);
        let began = Instant::now();
        let (second, all, runs) = chunks(paths[1].as_ref(), way);
        let took = began.elapsed().as_secs_f64();
        let mut known: Chunks = first.iter().map(|(digest, n, lane)| (*digest, (*n, *lane))).collect();
        let mut new = [0_usize; 3];
        for (digest, n, lane) in &second {
            if known.insert(*digest, (*n, *lane)).is_none() {
                new[*lane as usize] += n;
            }
        }
        let part = |n: usize| 100.0 * n as f64 / all as f64;
        println!(
            "| {} | {} | {runs} | {:.2}% | {:.2}% | {:.2}% | {:.2}% | {:.0} |",
            way.name,
            second.len(),
            part(new.iter().sum()),
            part(new[0]),
            part(new[1]),
            part(new[2]),
            all as f64 / 1e6 / took
        );
    }
}
