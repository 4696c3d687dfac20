//! Logs by range and live, and a build's events from any number on.

use serde_json::json;
use windlass_protocol::Digest;

use super::{Bench, Events, request, text};

#[tokio::test]
async fn a_log_is_read_whole_by_range_and_as_pieces_with_times() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let id = text(&bench.build().await["id"]).to_owned();
    let right = bench.start().await;
    bench.write(right, 0, b"hello\n").await;
    bench.write(right, 6, b"\xffworld\n").await;
    bench.finish(right, 0, b"hello\n\xffworld\n").await;
    bench.ended(&id).await;
    let path = format!("/api/v1/attempts/{}/log", right.0);
    let whole = bench.get(&path).await.is(200);
    assert_eq!((&whole.body[..], whole.header("content-length")), (&b"hello\n\xffworld\n"[..], "13"));
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    assert_eq!(bench.get(&format!("{path}?format=text")).await.header("content-type"), "text/plain; charset=utf-8");
    let range = async |range: &str| {
        bench.send(request(&bench.admin, "GET", &path).header("range", range).body("".into()).unwrap()).await
    };
    for (asked, bytes, shown) in [
        ("bytes=0-0", &b"h"[..], "bytes 0-0/13"),
        ("bytes=4-6", b"o\n\xff", "bytes 4-6/13"),
        ("bytes=8-", b"orld\n", "bytes 8-12/13"),
        ("bytes=-3", b"ld\n", "bytes 10-12/13"),
        ("bytes=-99", b"hello\n\xffworld\n", "bytes 0-12/13"),
        ("bytes=12-99", b"\n", "bytes 12-12/13"),
    ] {
        let answer = range(asked).await.is(206);
        assert_eq!((&answer.body[..], answer.header("content-range")), (bytes, shown), "{asked}");
    }
    for past in ["bytes=13-", "bytes=99-100", "bytes=-0"] {
        assert_eq!(range(past).await.is(416).header("content-range"), "bytes */13", "{past}");
    }
    for ignored in ["bytes=0-1,3-4", "lines=1-2", "bytes=5-4", "bytes=x-"] {
        assert_eq!(range(ignored).await.is(200).body.len(), 13, "{ignored}");
    }
    let lines = bench.get(&format!("{path}?format=ndjson")).await.is(200);
    let lines: Vec<serde_json::Value> =
        std::str::from_utf8(&lines.body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = [
        json!({ "offset": 0, "length": 6, "at": "2023-11-14T22:13:20.123Z", "text": "hello\n" }),
        json!({ "offset": 6, "length": 7, "at": "2023-11-14T22:13:20.129Z", "data": "/3dvcmxkCg==" }),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_log_is_followed_live_and_taken_up_again_where_it_was_left() {
    let (bench, right) = Bench::running().await;
    let path = format!("/api/v1/attempts/{}/log/stream", right.0);
    let mut events = Events::open(&bench, &path, None).await;
    bench.write(right, 0, b"one\n").await;
    let first = events.next().await.unwrap();
    assert_eq!((first.event.as_str(), first.id.as_deref()), ("", Some("4")));
    assert_eq!((&first.data["text"], &first.data["offset"]), (&json!("one\n"), &json!(0)));
    drop(events);
    bench.write(right, 4, b"two\n").await;
    let mut events = Events::open(&bench, &format!("{path}?offset=1"), Some("4")).await;
    assert_eq!(events.next().await.unwrap().data["text"], "two\n", "Last-Event-ID goes before offset");
    bench.finish(right, 0, b"one\ntwo\n").await;
    let end = events.next().await.unwrap();
    assert_eq!(end.event, "end");
    assert_eq!(end.data, json!({ "bytes": 8, "digest": Digest::of(b"one\ntwo\n") }));
    assert!(events.next().await.is_none(), "nothing follows the end");
    let mut late = Events::open(&bench, &format!("{path}?offset=6"), None).await;
    assert_eq!(late.next().await.unwrap().data["text"], "o\n");
    let mut ahead = Events::open(&bench, &path, Some("50")).await;
    assert_eq!(ahead.next().await.unwrap().event, "reset");
}

#[tokio::test]
async fn a_log_without_a_byte_ends_for_those_who_wait_and_those_who_come_late() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let id = text(&bench.build().await["id"]).to_owned();
    let right = bench.start().await;
    let path = format!("/api/v1/attempts/{}/log", right.0);
    let mut early = Events::open(&bench, &format!("{path}/stream"), None).await;
    bench.finish(right, 0, b"").await;
    assert_eq!(early.next().await.unwrap().event, "end");
    bench.ended(&id).await;
    let mut late = Events::open(&bench, &format!("{path}/stream"), None).await;
    assert_eq!(late.next().await.unwrap().data["bytes"], 0);
    assert!(late.next().await.is_none());
    assert!(bench.get(&path).await.is(200).body.is_empty());
}

#[tokio::test]
async fn a_build_is_followed_from_its_snapshot_to_its_end() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let id = text(&bench.build().await["id"]).to_owned();
    let mut events = Events::open(&bench, &format!("/api/v1/builds/{id}/events?until=finished"), None).await;
    let snapshot = events.next().await.unwrap();
    assert_eq!((snapshot.event.as_str(), snapshot.id), ("snapshot", None));
    assert_eq!(snapshot.data["build"]["id"], id);
    bench.run(0, b"").await;
    let rest = events.until("end").await;
    assert!(events.next().await.is_none());
    let durable: Vec<_> = rest.iter().filter(|sent| sent.id.is_some()).map(|sent| sent.event.as_str()).collect();
    assert_eq!(durable.last(), Some(&"build_finished"), "{durable:?}");
    assert!(durable.contains(&"job_finished"), "{durable:?}");
    for sent in rest.iter().filter(|sent| sent.event.starts_with("job_")) {
        assert_eq!(sent.data["job"]["step_key"], "one", "{sent:?}");
        assert_eq!(sent.id.is_none(), matches!(sent.event.as_str(), "job_started" | "job_progress"), "{sent:?}");
    }
    let finished = rest.iter().find(|sent| sent.event == "build_finished").unwrap();
    assert_eq!((&finished.data["state"], &finished.data["build"]["state"]), (&json!("passed"), &json!("passed")));
}

#[tokio::test]
async fn a_job_in_an_event_is_shown_as_its_whole_build_shows_it() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let definition = "steps:\n  - command: a\n    key: one\n  - command: x\n    key: other\n    agents: { queue: far }\n  - \
                      command: b\n    key: two\n    depends_on: one\n";
    let body = json!({ "pipeline": "web", "definition": definition });
    let id = text(&bench.post("/api/v1/builds", body).await.is(201).json()["id"]).to_owned();
    let path = format!("/api/v1/builds/{id}");
    let mut events = Events::open(&bench, &format!("{path}/events"), None).await;
    bench.run(0, b"").await;
    let mut of_two = Vec::new();
    while of_two.len() < 2 {
        let sent = events.next().await.unwrap();
        if sent.data["job"]["step_key"] == "two" {
            of_two.push(sent.data["job"].clone());
        }
    }
    let whole = bench.get(&path).await.is(200).json();
    let (one, two) = (&whole["jobs"][0], &whole["jobs"][2]);
    assert_eq!(two["depends_on"], json!([one["id"]]));
    assert_eq!((&of_two[1]["depends_on"], &of_two[1]["attempts"]), (&two["depends_on"], &two["attempts"]));
    assert_eq!(two["attempts"].as_array().unwrap().len(), 1, "it is leased");
    assert_eq!(&of_two[1], two);
}

#[tokio::test]
async fn a_client_that_comes_back_misses_no_event_and_sees_none_twice() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let id = text(&bench.build().await["id"]).to_owned();
    let path = format!("/api/v1/builds/{id}/events?until=finished");
    let ids = |events: &[super::Sent]| -> Vec<u64> {
        events.iter().filter_map(|sent| sent.id.as_ref()?.parse().ok()).collect()
    };
    bench.run(1, b"").await;
    bench.ended(&id).await;
    bench.post(&format!("/api/v1/builds/{id}/retry"), json!({})).await.is(200);
    bench.run(0, b"").await;
    bench.ended(&id).await;
    // From the beginning: the first end was taken back, and does not end the stream.
    let all = Events::open(&bench, &path, Some("0")).await.until("end").await;
    let ends = all.iter().filter(|sent| sent.event == "build_finished").count();
    assert_eq!((ends, all[0].event.as_str(), all[1].event.as_str()), (2, "snapshot", "build_created"));
    let all = ids(&all);
    assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
    for (seen, last) in all.iter().enumerate() {
        let rest = Events::open(&bench, &path, Some(&last.to_string())).await.until("end").await;
        assert_eq!(ids(&rest), &all[seen + 1..], "after {last}");
    }
}

#[tokio::test]
async fn a_watcher_of_an_ended_build_sees_it_run_again() {
    let mut bench = Bench::new().await;
    bench.agent().await;
    let id = text(&bench.build().await["id"]).to_owned();
    bench.run(1, b"").await;
    bench.ended(&id).await;
    let mut events = Events::open(&bench, &format!("/api/v1/builds/{id}/events"), None).await;
    assert_eq!(events.next().await.unwrap().data["state"], "failed");
    bench.post(&format!("/api/v1/builds/{id}/retry"), json!({})).await.is(200);
    bench.run(0, b"").await;
    let rest = events.until("build_finished").await;
    assert_eq!(rest.last().unwrap().data["state"], "passed");
}

#[tokio::test]
async fn metrics_count_commits_agents_queues_and_log_bytes() {
    let (bench, right) = Bench::running().await;
    bench.write(right, 0, b"hello").await;
    let elsewhere = "steps:\n  - command: make\n    agents: { queue: far }\n";
    bench.post("/api/v1/builds", json!({ "pipeline": "web", "definition": elsewhere })).await.is(201);
    let answer = bench.call("", "GET", "/metrics", "").await.is(200);
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    for line in [
        "windlass_agents{state=\"online\",pool=\"local\"} 1",
        "windlass_jobs{state=\"running\",pool=\"local\"} 1",
        "windlass_jobs{state=\"scheduled\",pool=\"\"} 1",
        "windlass_queue_jobs{queue=\"far\"} 1",
        "windlass_log_bytes_total 5",
        "windlass_builds_live 2",
        "windlass_http_requests_total{method=\"POST\",status=\"201\"} 2",
    ] {
        assert!(text.lines().any(|held| held == line), "{line} is not in\n{text}");
    }
    let commits = text.lines().find_map(|line| line.strip_prefix("windlass_store_commit_seconds_count "));
    assert!(commits.is_some_and(|count| count.parse::<u64>().unwrap() >= 4), "{text}");
    assert!(text.contains("windlass_queue_oldest_seconds{queue=\"far\"} "), "{text}");
    assert!(text.ends_with("# EOF\n"));
}
