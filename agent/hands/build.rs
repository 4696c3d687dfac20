//! Builds the program that is mounted into jobs: static, so that it needs nothing of the image that it runs in.
//!
//! It has no dependency but the standard library, so the compiler alone builds it, in some seconds, again only when one of
//! its files changes. It is built for the same target as everything else, with that target's linker.

#![allow(clippy::print_stdout, reason = "cargo hears a build script through its output")]

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

const SOURCES: [&str; 11] = [
    "program/main.rs",
    "program/agent.rs",
    "program/bootstrap.rs",
    "program/checkout.rs",
    "program/child.rs",
    "program/exchange.rs",
    "program/hook.rs",
    "program/tree.rs",
    "src/phases.rs",
    "src/plan.rs",
    "src/wire.rs",
];
/// Its bounds, which are the protocol's.
const LIMITS: [&str; 35] = [
    "../../protocol/src/limits.rs",
    "../../protocol/src/limits/action.rs",
    "../../protocol/src/limits/agent.rs",
    "../../protocol/src/limits/ahead.rs",
    "../../protocol/src/limits/api.rs",
    "../../protocol/src/limits/ask.rs",
    "../../protocol/src/limits/blob.rs",
    "../../protocol/src/limits/build.rs",
    "../../protocol/src/limits/chunk.rs",
    "../../protocol/src/limits/client.rs",
    "../../protocol/src/limits/engine.rs",
    "../../protocol/src/limits/fleet.rs",
    "../../protocol/src/limits/frame.rs",
    "../../protocol/src/limits/git.rs",
    "../../protocol/src/limits/hands.rs",
    "../../protocol/src/limits/identity.rs",
    "../../protocol/src/limits/intake.rs",
    "../../protocol/src/limits/lease.rs",
    "../../protocol/src/limits/link.rs",
    "../../protocol/src/limits/log.rs",
    "../../protocol/src/limits/notify.rs",
    "../../protocol/src/limits/origin.rs",
    "../../protocol/src/limits/parts.rs",
    "../../protocol/src/limits/peer.rs",
    "../../protocol/src/limits/pin.rs",
    "../../protocol/src/limits/pipeline.rs",
    "../../protocol/src/limits/place.rs",
    "../../protocol/src/limits/retention.rs",
    "../../protocol/src/limits/reuse.rs",
    "../../protocol/src/limits/runner.rs",
    "../../protocol/src/limits/secret.rs",
    "../../protocol/src/limits/segment.rs",
    "../../protocol/src/limits/store.rs",
    "../../protocol/src/limits/tree.rs",
    "../../protocol/src/limits/turn.rs",
];

fn main() -> Result<(), Box<dyn Error>> {
    for source in SOURCES.into_iter().chain(LIMITS) {
        println!("cargo::rerun-if-changed={source}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let target = env::var("TARGET")?;
    if env::var("CARGO_CFG_TARGET_OS")? != "linux" {
        return Err(format!("agents run on Linux; {target} is not served").into());
    }
    let program = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo names no OUT_DIR")?).join("hands");
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition=2024", "--crate-name=windlass_hands", "--crate-type=bin", "--cap-lints=allow"]);
    rustc.args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static"]);
    rustc.args(["-Copt-level=z", "-Cpanic=abort", "-Clto=fat", "-Ccodegen-units=1", "-Cstrip=symbols"]);
    rustc.args(["--target", &target]);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut linker_flag = std::ffi::OsString::from("-Clinker=");
        linker_flag.push(linker);
        rustc.arg(linker_flag);
    }
    rustc.arg("-o").arg(&program).arg(SOURCES[0]);
    let built = rustc.output().map_err(|error| format!("the compiler cannot be run: {error}"))?;
    if built.status.success() {
        return Ok(());
    }
    for line in explain(&target, &String::from_utf8_lossy(&built.stderr)).lines() {
        println!("cargo::error={line}");
    }
    Ok(())
}

/// What is missing, where the compiler's words show it.
fn explain(target: &str, said: &str) -> String {
    let hint = if said.contains("cannot find -lc") || said.contains("unable to find library -lc") {
        "the C library to link programs statically is missing (libc.a): install libc6-dev, or glibc-static where it is \
         packaged apart"
    } else if said.contains("can't find crate for `std`") {
        "the standard library for this target is missing: add it with `rustup target add`"
    } else {
        "see the compiler's words"
    };
    format!("the in-job program could not be built for {target}: {hint}\n\n{said}")
}
