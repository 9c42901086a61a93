//! `terse stats`: the same on the command line.

use crate::support::{Method, Place, Terse, Value, json};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

const PHONE: &str = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/126.0.0.0 Mobile Safari/537.36";
const PATIENCE: Duration = Duration::from_secs(30);

async fn click(server: &Terse, code: &str) {
    let answer = server.request(Method::GET, &format!("/{code}")).header("user-agent", PHONE).send().await;
    assert_eq!(answer.status, 302, "{answer:?}");
}

/// Runs a command until what it prints as JSON is as wanted: clicks are counted a moment later.
fn until(place: &Place, arguments: &[&str], holds: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let shown = place.ok_json(&[arguments, &["--json"]].concat());
        if holds(&shown) {
            return shown;
        }
        assert!(begin.elapsed() < PATIENCE, "{arguments:?}: {shown}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clicks_are_shown_exported_counted_anew_and_erased() {
    let place = Place::new();
    let server = place.start();
    let short = place.ok(&["shorten", "https://example.com/", "--alias", "one", "--tag", "news"]);
    for _ in 0..3 {
        click(&server, "one").await;
    }
    let stats = until(&place, &["stats", "show", "one"], |stats| stats["total_clicks"] == 3);
    assert_eq!(stats["short_url"], short.as_str());
    assert_eq!(place.ok_json(&["show", "one", "--json"])["clicks"], 3);
    let page = place.ok(&["stats", "show", &short]);
    for part in [short.as_str(), "clicks          3", "visitors        1", "Devices", "  3  mobile", "█"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(place.ok(&["stats", "show"]).contains("clicks          3"));
    let filtered = place.ok_json(&["stats", "show", "one", "--device", "desktop", "--json"]);
    assert_eq!(filtered["clicks"], 0);
    let grouped = ["stats", "show", "--tag", "news", "--group-by", "device", "--kind", "all", "--json"];
    assert_eq!(place.ok_json(&grouped)["groups"][0]["value"], "mobile");
    let begin = Instant::now();
    let lines = loop {
        let lines = place.ok(&["stats", "export", "one", "--format", "ndjson"]);
        if lines.lines().count() == 3 {
            break lines;
        }
        assert!(begin.elapsed() < PATIENCE, "{lines}");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(place.ok(&["stats", "export"]), lines, "of all links");
    let file = place.argument("clicks.parquet");
    let written = place.ok_json(&["stats", "export", "--format", "parquet", "--output", &file, "--json"]);
    let bytes = std::fs::read(&file).unwrap();
    assert_eq!((&bytes[..4], written["bytes"].as_u64()), (&b"PAR1"[..], Some(bytes.len() as u64)));
    assert!(place.ok(&["stats", "export", "--format", "csv", "--to", "2000-01-01"]).starts_with("v,id,at,"));
    let reconciled = place.ok_json(&["stats", "reconcile", "--json"]);
    assert!(reconciled["days"].is_array() && reconciled["left_out"].is_array(), "{reconciled}");
    let visitor: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let visitor = visitor["visitor"].as_str().unwrap();
    assert_eq!(place.ok(&["stats", "erase", "--visitor", visitor]), "Erased 3 raw clicks");
    assert_eq!(place.ok_json(&["stats", "erase", "--link", "one", "--json"]), json!({"erased_events": 0}));
    until(&place, &["stats", "show", "one"], |stats| stats["clicks_total_all"] == 0);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_count_is_followed_until_the_command_is_stopped() {
    let place = Place::new();
    assert!(place.refused(&["stats", "live", "one"]).contains("no server"));
    let server = place.start();
    place.ok(&["shorten", "https://example.com/", "--alias", "one"]);
    let mut command = Terse::command(&place.data());
    let mut child = command.args(["stats", "live", "one"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "0 clicks, 0 visitors, 0 of every kind");
    click(&server, "one").await;
    // The visitor is counted a moment later, with the commit.
    let counted = "1 clicks, 1 visitors, 1 of every kind";
    assert!(lines.by_ref().take(2).any(|line| line == counted));
    let id = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
    drop(server);
}

#[test]
fn a_mistake_is_told_on_stderr_alone() {
    let place = Place::new();
    place.ok(&["shorten", "https://example.com/", "--alias", "one"]);
    for (arguments, word) in [
        (&["stats"][..], "Usage"),
        (&["stats", "one"], "one"),
        (&["stats", "show", "absent"], "URL_NOT_FOUND"),
        (&["stats", "show", "one", "--tag", "t"], "--tag"),
        (&["stats", "show", "one", "--from", "then"], "from"),
        (&["stats", "show", "one", "--granularity", "year"], "granularity"),
        (&["stats", "show", "one", "--group-by", "moon"], "group_by"),
        (&["stats", "show", "one", "--timezone", "Mars/Olympus"], "timezone"),
        (&["stats", "show", "one", "--country", "CHE"], "country"),
        (&["stats", "show", "--domain", "else.example"], "domain"),
        (&["stats", "export", "--format", "xlsx"], "format"),
        (&["stats", "export", "absent"], "URL_NOT_FOUND"),
        (&["stats", "export", "--output", "/absent/file"], "absent"),
        (&["stats", "reconcile", "--from", "then"], "from"),
        (&["stats", "erase"], "--link"),
        (&["stats", "erase", "--link", "one", "--visitor", "0a1b2c3d4e5f6071"], "--visitor"),
        (&["stats", "erase", "--visitor", "x"], "visitor"),
    ] {
        let said = place.refused(arguments);
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}
