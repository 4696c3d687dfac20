//! Verifies a data directory while no coordinator runs: `windlass coordinator --check`. Changes no row.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;
use windlass_coordinator_core::row::{AttemptRow, BuildRow, JobRow, MetaRow, PinRow};
use windlass_protocol::{AttemptId, BuildId, JobId, Trust};

use crate::dir::{FORMAT, lock_to_read, read_format};
use crate::fault::{Fault, OpenError};
use crate::sqlite::{NEVER, OWN_END, SCHEMA_OF_PINS, SCHEMA_VERSION, Target, decode, fault_of, version_of};

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// The schema's version.
    pub schema: u32,
    /// Builds that were looked at.
    pub builds: u64,
    /// Their jobs.
    pub jobs: u64,
    /// Their attempts.
    pub attempts: u64,
    /// What is wrong, for people; empty if nothing is. At most [`Report::FINDINGS_MAX`].
    pub findings: Vec<String>,
}

impl Report {
    /// Findings in one report; one cause can break every row.
    pub const FINDINGS_MAX: usize = 1_000;

    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, finding: String) {
        if self.findings.len() < Self::FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Checks a data directory. What is wrong inside it is in the report; only what keeps from looking is an error.
///
/// # Errors
/// [`OpenError`]: in use, not there, of a newer schema, or what the system says.
pub fn check(dir: &Path) -> Result<Report, OpenError> {
    let target = Target { path: dir.join("store.sqlite"), vfs: None };
    if !target.path.exists() {
        return Err(OpenError::NotThere { dir: dir.to_owned() });
    }
    let _lock = lock_to_read(dir)?;
    let format = dir.join("format");
    if let Some(found) = read_format(&format)?.filter(|found| *found > FORMAT) {
        return Err(OpenError::NewerSchema { path: format, found, known: FORMAT });
    }
    let conn = target.connect_to_read().map_err(|e| fault_of("open the store", e))?;
    let schema = match version_of(&conn) {
        Ok(found) if found > SCHEMA_VERSION => {
            return Err(OpenError::NewerSchema { path: target.path, found, known: SCHEMA_VERSION });
        }
        Ok(found) => found,
        Err(Fault::Corrupt { detail }) => return Ok(Report { findings: vec![detail], ..Report::default() }),
        Err(fault) => return Err(fault.into()),
    };
    let mut report = Report { schema, ..Report::default() };
    check_pages(&conn, &mut report);
    if let Err(fault) = check_rows(&conn, &mut report) {
        report.find(fault.to_string());
    }
    Ok(report)
}

/// SQLite's own check of pages and indexes.
fn check_pages(conn: &Connection, report: &mut Report) {
    let mut look = || {
        let mut statement = conn.prepare("PRAGMA integrity_check")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let line: String = row.get(0)?;
            if line != "ok" {
                report.find(format!("page: {line}"));
            }
        }
        Ok::<_, rusqlite::Error>(())
    };
    if let Err(error) = look() {
        report.find(format!("integrity check: {error}"));
    }
}

/// Which row names which: builds, then jobs of builds, then attempts of jobs.
fn check_rows(conn: &Connection, report: &mut Report) -> Result<(), Fault> {
    let builds = check_builds(conn, report)?;
    let jobs = check_jobs(conn, report, &builds)?;
    check_attempts(conn, report, &jobs)?;
    check_orphans(conn, report)?;
    check_pins(conn, report)
}

/// Calls `each` with every row of a table; one that cannot be read is a finding.
fn each_row<T: serde::de::DeserializeOwned>(
    conn: &Connection,
    report: &mut Report,
    what: &'static str,
    sql: &str,
    mut each: impl FnMut(&mut Report, T),
) -> Result<(), Fault> {
    let fault = |e| fault_of("read rows", e);
    let mut statement = conn.prepare(sql).map_err(fault)?;
    let mut rows = statement.query([]).map_err(fault)?;
    while let Some(row) = rows.next().map_err(fault)? {
        match decode(what, &row.get::<_, String>(0).map_err(fault)?) {
            Ok(found) => each(report, found),
            Err(fault) => report.find(fault.to_string()),
        }
    }
    Ok(())
}

fn check_builds(conn: &Connection, report: &mut Report) -> Result<BTreeSet<BuildId>, Fault> {
    let mut ids = BTreeSet::new();
    each_row(conn, report, "build", "SELECT json FROM builds", |report, build: BuildRow| {
        report.builds += 1;
        if build.state.is_final() != build.finished_at.is_some() {
            report.find(format!(
                "build {}: state {:?}, but finished_at is {:?}",
                build.id, build.state, build.finished_at
            ));
        }
        ids.insert(build.id);
    })?;
    Ok(ids)
}

fn check_jobs(
    conn: &Connection,
    report: &mut Report,
    builds: &BTreeSet<BuildId>,
) -> Result<BTreeMap<AttemptId, JobId>, Fault> {
    let mut named = BTreeMap::new();
    each_row(conn, report, "job", "SELECT json FROM jobs", |report, job: JobRow| {
        report.jobs += 1;
        if !builds.contains(&job.build) {
            report.find(format!("job {}: its build {} does not exist", job.id, job.build));
        }
        for attempt in &job.attempts {
            if let Some(other) = named.insert(*attempt, job.id) {
                report.find(format!("attempt {attempt}: named by jobs {other} and {}", job.id));
            }
        }
    })?;
    Ok(named)
}

/// Every attempt is named by its job, at most one of a job is live, and no right is above the last one granted (I2).
fn check_attempts(conn: &Connection, report: &mut Report, named: &BTreeMap<AttemptId, JobId>) -> Result<(), Fault> {
    let mut last_epoch = 0;
    each_row(conn, report, "meta", "SELECT json FROM meta WHERE id = 1", |_, meta: MetaRow| {
        last_epoch = meta.last_epoch;
    })?;
    let mut missing: BTreeSet<AttemptId> = named.keys().copied().collect();
    let mut live_jobs = BTreeMap::new();
    let mut epochs = BTreeMap::new();
    each_row(conn, report, "attempt", "SELECT json FROM attempts", |report, attempt: AttemptRow| {
        let id = attempt.id;
        report.attempts += 1;
        missing.remove(&id);
        if named.get(&id) != Some(&attempt.job) {
            report.find(format!("attempt {id}: its job {} does not name it", attempt.job));
        }
        if attempt.epoch.0 == 0 || attempt.epoch.0 > last_epoch {
            report.find(format!("attempt {id}: epoch {} was never granted (last {last_epoch})", attempt.epoch.0));
        }
        if let Some(other) = epochs.insert(attempt.epoch, id) {
            report.find(format!("attempts {other} and {id}: the same epoch {}", attempt.epoch.0));
        }
        if attempt.state.is_final() {
            return;
        }
        if let Some(other) = live_jobs.insert(attempt.job, id) {
            report.find(format!("job {}: attempts {other} and {id} both hold a lease", attempt.job));
        }
    })?;
    for id in missing {
        report.find(format!("attempt {id}: named by a job, but does not exist"));
    }
    Ok(())
}

/// What the columns alone tell: rows that belong to nothing.
fn check_orphans(conn: &Connection, report: &mut Report) -> Result<(), Fault> {
    const CHECKS: [(&str, &str); 3] = [
        (
            "events of builds that do not exist",
            "SELECT count(DISTINCT build) FROM events WHERE build NOT IN (SELECT id FROM builds)",
        ),
        (
            "builds whose pipeline text is missing",
            "SELECT count(*) FROM builds WHERE definition NOT IN (SELECT digest FROM definitions)",
        ),
        (
            "builds with a number above their pipeline's last",
            "SELECT count(*) FROM builds b LEFT JOIN pipelines p ON p.name = b.pipeline WHERE p.last IS NULL OR b.number > p.last",
        ),
    ];
    count(conn, report, &CHECKS)
}

/// Every pin has its build, every held result its pin or one that is just over, and so has every artifact that was moved.
fn check_pins(conn: &Connection, report: &mut Report) -> Result<(), Fault> {
    // Before there were pins.
    if report.schema < SCHEMA_OF_PINS {
        return Ok(());
    }
    let free = "build NOT IN (SELECT build FROM pins) AND build NOT IN (SELECT build FROM unpinned)";
    let ends = format!("(expires_at = {OWN_END} OR expires_at = {NEVER})");
    let checks = [
        ("pins of builds that do not exist", "pins WHERE build NOT IN (SELECT id FROM builds)".to_owned()),
        ("ends of pins that are not over", "unpinned WHERE build IN (SELECT build FROM pins)".to_owned()),
        ("ends of pins of builds that do not exist", "unpinned WHERE build NOT IN (SELECT id FROM builds)".to_owned()),
        ("results that are held by no pin", format!("pinned_results WHERE {free}")),
        (
            "artifacts that stay, and whose builds have no pin",
            format!("artifacts WHERE expires_at = {NEVER} AND {free}"),
        ),
        ("artifacts that go at a time which is not theirs", format!("artifacts WHERE NOT {ends}")),
    ];
    each_row(conn, report, "pin", "SELECT json FROM pins", |report, pin: PinRow| {
        if pin.namespace.trust() == Trust::Untrusted {
            report.find(format!("the pin of build {}: it is not trusted", pin.build));
        }
    })?;
    for (what, from) in checks {
        count(conn, report, &[(what, &format!("SELECT count(*) FROM {from}"))])?;
    }
    Ok(())
}

fn count(conn: &Connection, report: &mut Report, checks: &[(&str, &str)]) -> Result<(), Fault> {
    for (what, sql) in checks {
        let count: i64 = conn.query_row(sql, [], |row| row.get(0)).map_err(|e| fault_of("check", e))?;
        if count > 0 {
            report.find(format!("{count} {what}"));
        }
    }
    Ok(())
}
