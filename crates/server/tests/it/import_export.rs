//! Import and export: what others write is understood, and what we write comes back the same.

use crate::support::{Place, Terse, Value, json};
use std::io::Write;
use std::process::{Output, Stdio};

/// Runs an import of a file with this name and content; the report.
#[track_caller]
fn import(place: &Place, name: &str, content: impl AsRef<[u8]>) -> Value {
    let output = place.run(&["import", &place.file(name, content), "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    assert_eq!(output.status.success(), report["refused"] == 0, "{output:?}");
    report
}

/// Rows, created, existing, refused.
#[track_caller]
fn check_counts(report: &Value, expected: [usize; 4]) {
    let counts =
        ["rows", "created", "existing", "refused"].map(|name| report[name].as_u64().unwrap() as usize);
    assert_eq!(counts, expected, "{report}");
}

fn piped(place: &Place, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Terse::command(&place.data());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    output
}

/// All links, oldest first, without what differs between two folders.
fn links(data: &std::path::Path) -> Vec<Value> {
    let list = Terse::ok_json(data, &["list", "--limit", "10000", "--json"]);
    let mut links = list.as_array().unwrap().clone();
    for link in &mut links {
        for field in ["created_at", "updated_at", "revision", "short_url"] {
            link.as_object_mut().unwrap().remove(field);
        }
    }
    links.sort_by_key(|link| link["short_code"].as_str().unwrap().to_owned());
    links
}

#[test]
fn a_csv_file_with_the_names_of_others_is_understood() {
    let place = Place::new();
    let csv = "\u{feff}Short_Code, Target_URL ,title,tags,notes,expiry,clicks\r\n\
               one,https://example.com/1,\"A title, with a comma\",\"red; blue\",,,17\r\n\
               two,https://example.com/2,\"quoted \"\"word\"\"\",red|green,\"two\nlines\",2099-01-31,\r\n\
               ,https://example.com/3,,,,,\r\n";
    check_counts(&import(&place, "links.csv", csv), [3, 3, 0, 0]);
    let show = |code: &str| place.ok_json(&["show", code, "--json"]);
    let one = show("one");
    assert_eq!(
        (&one["long_url"], &one["title"]),
        (&json!("https://example.com/1"), &json!("A title, with a comma"))
    );
    assert_eq!(one["tags"], json!(["red", "blue"]));
    let two = show("two");
    assert_eq!((&two["title"], &two["notes"]), (&json!("quoted \"word\""), &json!("two\nlines")));
    assert_eq!(
        (&two["tags"], &two["expires_at"]),
        (&json!(["red", "green"]), &json!("2099-01-31T00:00:00.000Z"))
    );
}

#[test]
fn columns_may_have_the_names_that_others_give_them() {
    let place = Place::new();
    let targets = ["url", "original_url", "long_url", "target", "target_url", "destination", "LongURL"];
    let codes = ["alias", "slug", "keyword", "code", "short_code", "custom_alias", "Alias"];
    for (target, code) in targets.into_iter().zip(codes) {
        let csv = format!("{code},{target}\nby-{code},https://example.com/{target}\n");
        check_counts(&import(&place, "links.csv", csv), [1, 1, 0, 0]);
        let shown = place.ok(&["show", &format!("by-{code}")]);
        assert!(shown.contains(&format!("https://example.com/{target}")), "{shown}");
    }
    let twice = import(&place, "twice.csv", "url,target\nhttps://example.com/1,https://example.com/2\n");
    check_counts(&twice, [1, 0, 0, 1]);
}

#[track_caller]
fn piped_report(place: &Place, arguments: &[&str], input: &[u8]) -> Value {
    let output = piped(place, arguments, input);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn the_format_is_told_by_the_name_or_the_first_character() {
    let place = Place::new();
    let ndjson = "\n{\"url\":\"https://example.com/1\"}\n\n  {\"url\":\"https://example.com/2\"}";
    let csv = "url\nhttps://example.com/3\n";
    check_counts(&import(&place, "a.ndjson", ndjson), [2, 2, 0, 0]);
    check_counts(&import(&place, "a.jsonl", ndjson), [2, 0, 2, 0]);
    check_counts(&import(&place, "a.txt", ndjson), [2, 0, 2, 0]);
    check_counts(&import(&place, "bom.txt", format!("\u{feff}{}", ndjson.trim())), [2, 0, 2, 0]);
    check_counts(&import(&place, "bom.ndjson", format!("\u{feff}{}", ndjson.trim())), [2, 0, 2, 0]);
    check_counts(&import(&place, "b.csv", csv), [1, 1, 0, 0]);
    check_counts(&import(&place, "b.txt", csv), [1, 0, 1, 0]);
    let arguments = ["import", "-", "--json"];
    check_counts(&piped_report(&place, &arguments, ndjson.as_bytes()), [2, 0, 2, 0]);
    check_counts(&piped_report(&place, &arguments, csv.as_bytes()), [1, 0, 1, 0]);
    let said = piped(&place, &["import", "-", "--format", "csv"], ndjson.as_bytes());
    assert!(!said.status.success(), "{said:?}");
}

#[test]
fn a_bad_row_is_reported_with_its_number_and_stops_nobody() {
    let place = Place::new();
    place.ok(&["shorten", "https://example.com/mine", "--alias", "taken"]);
    let csv = "custom_alias,long_url,expires_at,click_limit\n\
               one,https://example.com/1,,\n\
               bad,ftp://example.com/2,,\n\
               x,https://example.com/3,,\n\
               ,,,\n\
               api,https://example.com/5,,\n\
               taken,https://example.com/6,,\n\
               old,https://example.com/7,2001-01-01,\n\
               many,https://example.com/8,,lots\n\
               cut,https://example.com/9?a=1,2,,more\n\
               user,https://me:secret@example.com/,,\n\
               last,https://example.com/11,,\n\
               taken,https://example.com/mine,,\n";
    let report = import(&place, "rows.csv", csv);
    check_counts(&report, [12, 2, 1, 9]);
    let words = [
        (2, "long_url"),
        (3, "custom_alias"),
        (4, "long_url"),
        (5, "reserved"),
        (6, "taken"),
        (7, "expires_at"),
        (8, "click_limit"),
        (9, "cells"),
        (10, "long_url"),
    ];
    let mut refusals = report["refusals"].as_array().unwrap().clone();
    refusals.sort_by_key(|refusal| refusal["row"].as_u64());
    for (refusal, (row, word)) in refusals.iter().zip(words) {
        assert_eq!(refusal["row"], row, "{report}");
        assert!(refusal["reason"].as_str().unwrap().to_lowercase().contains(word), "{refusal}");
    }
    assert!(place.ok(&["show", "taken"]).contains("https://example.com/mine"));
    assert!(place.ok(&["show", "last"]).contains("https://example.com/11"));
    let output = place.run(&["import", &place.argument("rows.csv")]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("12 rows: 0 created, 3 existing, 9 refused"), "{said}");
    assert!(said.contains("row 6: "), "{said}");
}

#[test]
fn a_second_run_creates_nothing() {
    let place = Place::new();
    let rows: String = (0..60)
        .map(|row| match row % 3 {
            0 => format!(
                "{{\"url\":\"https://example.com/{row}\",\"code\":\"code-{row}\",\"tags\":[\"a\"]}}\n"
            ),
            1 => format!("{{\"url\":\"HTTPS://Example.com/{row}\",\"title\":\"row {row}\"}}\n"),
            _ => format!("{{\"url\":\"https://example.com/{row}\"}}\n"),
        })
        .collect();
    check_counts(&import(&place, "a.ndjson", &rows), [60, 60, 0, 0]);
    let before = links(&place.data());
    check_counts(&import(&place, "a.ndjson", &rows), [60, 0, 60, 0]);
    let server = place.start();
    check_counts(&import(&place, "a.ndjson", &rows), [60, 0, 60, 0]);
    drop(server);
    assert_eq!(links(&place.data()), before);
}

/// Links of every kind.
fn make_links(place: &Place) {
    let rows = [
        json!({"url": "https://example.com/plain"}),
        json!({"url": "https://example.com/a,b;c|d?q=\"1\"#f", "code": "marks"}),
        json!({"url": "https://example.com/1", "code": "sum", "title": "=1+1", "notes": "@home", "tags": ["-x", "y"]}),
        json!({"url": "https://example.com/2", "code": "quote", "title": "'=it", "notes": "'tis\n\"two\" lines, here"}),
        json!({"url": "https://example.com/3", "code": "tags", "tags": ["a;b", "c,d", "e|f"]}),
        json!({"url": "https://example.com/4", "code": "list", "tags": ["[x]", "ünï"]}),
        json!({"url": "https://example.com/5", "code": "all", "title": "t", "notes": "n", "redirect_type": 301,
            "click_limit": 7, "starts_at": "2020-01-01", "expires_at": "2099-01-01",
            "fallback_url": "https://example.com/f", "forward_query": true}),
        json!({"url": "https://example.com/6", "code": "paused", "enabled": false}),
    ];
    let rows: String = rows.iter().map(|row| format!("{row}\n")).collect();
    check_counts(&import(place, "make.ndjson", rows), [8, 8, 0, 0]);
}

#[test]
fn what_is_exported_is_imported_the_same() {
    let place = Place::new();
    make_links(&place);
    let original = links(&place.data());
    for name in ["links.ndjson", "links.csv"] {
        let file = place.argument(name);
        let output = place.run(&["export", &file]);
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        let other = place.path(&format!("other-{name}"));
        let report = Terse::ok_json(&other, &["import", &file, "--json"]);
        check_counts(&report, [8, 8, 0, 0]);
        assert_eq!(links(&other), original, "{name}");
        check_counts(&Terse::ok_json(&other, &["import", &file, "--json"]), [8, 0, 8, 0]);
        check_counts(&place.ok_json(&["import", &file, "--json"]), [8, 0, 8, 0]);
    }
    let csv = std::fs::read_to_string(place.path("links.csv")).unwrap();
    assert!(csv.contains("'=1+1") && csv.contains("'@home") && csv.contains("'-x"), "no formulas:\n{csv}");
}

#[test]
fn an_export_to_stdout_is_the_links_and_nothing_else() {
    let place = Place::new();
    make_links(&place);
    let ndjson = place.run(&["export"]);
    assert!(ndjson.status.success() && ndjson.stderr.is_empty(), "{ndjson:?}");
    let text = String::from_utf8(ndjson.stdout).unwrap();
    let codes: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(codes.len(), 8);
    let csv = String::from_utf8(place.run(&["export", "--format", "csv"]).stdout).unwrap();
    assert!(csv.starts_with("short_url,short_code,domain,long_url,"), "{csv}");
    let other = Place::new();
    check_counts(&piped_report(&other, &["import", "-", "--json"], text.as_bytes()), [8, 8, 0, 0]);
    assert_eq!(links(&other.data()), links(&place.data()));
}

#[test]
fn a_link_with_a_password_does_not_come_back_without_one() {
    let place = Place::new();
    place.ok(&["shorten", "https://example.com/", "--alias", "locked", "--password", "sesame"]);
    for name in ["links.ndjson", "links.csv"] {
        let file = place.argument(name);
        place.ok(&["export", &file]);
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains("sesame") && !text.contains("argon2"), "{text}");
        let other = Place::new();
        let report = import(&other, name, &text);
        check_counts(&report, [1, 0, 0, 1]);
        assert!(report["refusals"][0]["reason"].as_str().unwrap().contains("password"), "{report}");
    }
    let row =
        "{\"url\":\"https://example.com/\",\"code\":\"again\",\"has_password\":true,\"password\":\"rice\"}";
    check_counts(&import(&place, "row.ndjson", row), [1, 1, 0, 0]);
    assert_eq!(place.ok_json(&["show", "again", "--json"])["has_password"], true);
}

#[test]
fn odd_files_do_no_harm() {
    let place = Place::new();
    for name in ["empty.csv", "empty.ndjson", "empty"] {
        check_counts(&import(&place, name, ""), [0, 0, 0, 0]);
    }
    check_counts(&import(&place, "header.csv", "long_url,title\n"), [0, 0, 0, 0]);
    assert!(place.refused(&["import", &place.argument("absent.csv")]).contains("absent.csv"));
    assert!(place.refused(&["import", &place.argument("run")]).contains("cannot read"));
    let noise: Vec<u8> = (0..40_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for name in ["noise.csv", "noise.ndjson", "noise"] {
        let output = place.run(&["import", &place.file(name, &noise)]);
        assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{name}: {output:?}");
    }
    let latin = b"url,title\nhttps://example.com/1,caf\xe9\nhttps://example.com/2,cafe\n";
    check_counts(&import(&place, "latin.csv", latin), [2, 1, 0, 1]);
    assert_eq!(links(&place.data()).len(), 1);
}

#[test]
fn a_row_of_ten_megabytes_is_refused_and_the_others_go_on() {
    let place = Place::new();
    let long = "x".repeat(10 << 20);
    let row = |number: usize| format!("{{\"url\":\"https://example.com/{number}\"}}\n");
    let ndjson: String =
        (0..8).map(|number| row(number) + &format!("{{\"url\":\"https://example.com/{long}\"}}\n")).collect();
    check_counts(&import(&place, "long.ndjson", ndjson), [16, 8, 0, 8]);
    let csv = format!("url,title\nhttps://example.com/1,{long}\nhttps://example.com/8,\n");
    check_counts(&import(&place, "long.csv", csv), [2, 1, 0, 1]);
}

#[test]
fn rows_that_are_large_together_are_sent_in_parts() {
    let place = Place::new();
    let notes = "ü".repeat(10_000);
    let row = |row: usize| format!("{{\"url\":\"https://example.com/{row}\",\"notes\":\"{notes}\"}}\n");
    let ndjson: String = (0..3_500).map(row).collect();
    assert!(ndjson.len() > 64 << 20, "more than one call takes");
    check_counts(&import(&place, "large.ndjson", ndjson), [3_500, 3_500, 0, 0]);
}

#[test]
fn rows_may_name_a_domain() {
    let place = Place::new();
    place.ok(&["domains", "add", "second.example"]);
    let rows = "{\"url\":\"https://example.com/1\",\"code\":\"one\",\"domain\":\"second.example\"}\n\
                {\"url\":\"https://example.com/2\",\"code\":\"one\"}\n\
                {\"url\":\"https://example.com/3\",\"code\":\"one\",\"domain\":\"third.example\"}\n";
    let report = import(&place, "rows.ndjson", rows);
    check_counts(&report, [3, 2, 0, 1]);
    assert!(report["refusals"][0]["reason"].as_str().unwrap().starts_with("domain"), "{report}");
    assert!(place.ok(&["show", "one", "--domain", "second.example"]).contains("https://example.com/1"));
    assert!(place.ok(&["show", "one"]).contains("https://example.com/2"));
    let file = place.file("more.csv", "code,url\ntwo,https://example.com/4\n");
    place.ok(&["import", &file, "--domain", "second.example"]);
    assert!(place.ok(&["show", "two", "--domain", "second.example"]).contains("https://example.com/4"));
    check_counts(&place.ok_json(&["import", &file, "--domain", "second.example", "--json"]), [1, 0, 1, 0]);
}
