//! The command line: every command, with a server running and without.

use crate::support::{Connection, Method, Place, Terse, TestRequest, Value, json};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

/// Runs `check` on a folder without a server, and on one with a server.
fn both_ways(check: impl Fn(&Place)) {
    check(&Place::new());
    let place = Place::new();
    let server = place.start();
    check(&place);
    // The server has seen it all.
    assert!(place.ok(&["doctor"]).contains("the server answers"));
    drop(server);
}

#[test]
fn links_are_made_listed_shown_changed_and_deleted() {
    both_ways(|place| {
        let short = place.ok(&["shorten", "https://example.com/a"]);
        assert!(short.starts_with("http://127.0.0.1") && short.lines().count() == 1, "{short}");
        let named =
            place.ok(&["shorten", "https://example.com/b", "-a", "named", "--title", "B", "--tag", "x"]);
        assert!(named.ends_with("/named"), "{named}");
        assert_eq!(place.ok(&["list"]).lines().count(), 2);
        assert_eq!(place.ok(&["list", "--limit", "1"]), format!("{named}  https://example.com/b"));
        assert_eq!(place.ok(&["list", "--tag", "x"]).lines().count(), 1);
        assert_eq!(place.ok(&["list", "-q", "example.com/a"]).lines().count(), 1);
        assert_eq!(place.ok(&["list", "-q", "100%&=#"]), "");
        let shown = place.ok(&["show", &short]);
        assert!(shown.contains("long url        https://example.com/a"), "{shown}");
        let updated =
            place.ok(&["update", "named", "--url", "https://example.com/c", "--clear", "title,tags"]);
        assert!(updated.contains("https://example.com/c") && !updated.contains("title"), "{updated}");
        place.ok(&["update", "named", "--disable"]);
        assert!(place.ok(&["list"]).contains("[disabled]"));
        place.ok(&["update", "named", "--enable"]);
        assert_eq!(place.ok(&["delete", "named"]), "Deleted named");
        assert!(place.refused(&["show", "named"]).contains("URL_DELETED"));
        place.ok(&["delete", "named"]);
        assert_eq!(place.ok(&["list"]).lines().count(), 1);
    });
}

#[test]
fn every_command_prints_json_when_asked() {
    both_ways(|place| {
        let made = place.ok_json(&["shorten", "https://example.com/", "--alias", "one", "--json"]);
        assert_eq!((&made["short_code"], &made["long_url"]), (&json!("one"), &json!("https://example.com/")));
        assert_eq!(place.ok_json(&["--json", "show", "one"]), made);
        assert_eq!(place.ok_json(&["list", "--json"]), json!([made]));
        assert_eq!(place.ok_json(&["list", "--tag", "none", "--json"]), json!([]));
        assert_eq!(place.ok_json(&["update", "one", "--title", "t", "--json"])["title"], "t");
        assert_eq!(place.ok_json(&["delete", "one", "--json"]), json!({"deleted": "one"}));
        let key = place.ok_json(&["keys", "create", "--name", "ann", "--json"]);
        assert!(key["key"].as_str().unwrap().starts_with("terse_"), "{key}");
        let keys = place.ok_json(&["keys", "list", "--json"]);
        assert_eq!((&keys[0]["id"], keys[0].get("key")), (&key["id"], None));
        let id = key["id"].to_string();
        assert_eq!(place.ok_json(&["keys", "revoke", &id, "--json"]), json!({"revoked": key["id"]}));
        assert_eq!(place.ok_json(&["domains", "add", "second.example", "--json"])["name"], "second.example");
        assert_eq!(place.ok_json(&["domains", "list", "--json"]).as_array().unwrap().len(), 2);
        let rows = place.file("rows.csv", "url\nhttps://example.com/\n");
        assert_eq!(place.ok_json(&["import", &rows, "--json"])["created"], 1);
        assert_eq!(place.ok_json(&["export", "--json"])["long_url"], "https://example.com/");
        let _ = std::fs::remove_file(place.path("backup"));
        let backup = place.argument("backup");
        assert_eq!(place.ok_json(&["backup", &backup, "--json"])["file"], backup);
        let second = place.path("second");
        let restored = Terse::ok_json(&second, &["restore", &backup, "--json"]);
        assert_eq!(restored["data_dir"], second.to_str().unwrap());
        let findings = place.ok_json(&["doctor", "--json"]);
        assert!(findings.as_array().unwrap().iter().all(|finding| finding["ok"] == true), "{findings}");
    });
}

#[test]
fn a_mistake_is_told_on_stderr_alone() {
    both_ways(|place| {
        place.ok(&["shorten", "https://example.com/", "--alias", "taken"]);
        let absent = place.argument("absent");
        let check = |arguments: &[&str], word: &str| {
            let said = place.refused(arguments);
            assert!(said.contains(word), "{arguments:?}: {said}");
            let with_json = [arguments, &["--json"]].concat();
            assert!(place.refused(&with_json).contains(word), "{with_json:?}");
        };
        check(&["shorten", "nonsense"], "long_url");
        check(&["shorten", "https://example.com/", "--alias", "taken"], "ALIAS_TAKEN");
        check(&["shorten", "https://example.com/", "--alias", "x"], "custom_alias");
        check(&["shorten", "https://example.com/", "--alias", "API"], "reserved");
        check(&["shorten", "https://example.com/", "--domain", "else.example"], "domain");
        check(&["shorten", "https://example.com/", "--expires-at", "2001-01-01"], "expires_at");
        check(&["shorten", "https://example.com/", "--expires-in", "0"], "expires_in");
        check(&["shorten", "https://example.com/", "--type", "303"], "redirect_type");
        check(&["shorten", "https://example.com/", "--click-limit", "0"], "click_limit");
        check(&["shorten", "https://example.com/", "--user", "two words"], "user");
        check(&["shorten"], "URL");
        check(&["list", "--state", "odd"], "state");
        check(&["show", "absent"], "URL_NOT_FOUND");
        check(&["update", "absent", "--title", "t"], "URL_NOT_FOUND");
        check(&["update", "taken", "--clear", "nonsense"], "nonsense");
        check(&["update", "taken", "--enable", "--disable"], "--disable");
        check(&["delete", "absent"], "URL_NOT_FOUND");
        check(&["keys", "create"], "--name");
        check(&["keys", "create", "--name", "ann", "--role", "king"], "role");
        check(&["keys", "create", "--name", "ann", "--tier", "gold"], "tier");
        check(&["keys", "create", "--name", "ann", "--scopes", "links:read,fly"], "scopes");
        check(&["keys", "create", "--name", "ann", "--expires", "2001-01-01"], "expires_at");
        check(&["keys", "create", "--name", "two words"], "user");
        check(&["keys", "revoke", "99"], "key");
        check(&["domains", "add", "https://x.example/"], "name");
        check(&["import", &absent], "absent");
        check(&["backup", &format!("{absent}/file")], "absent");
        check(&["export", &format!("{absent}/file")], "absent");
        check(&["restore", &absent], "not empty");
        check(&["restore"], "FILE");
        check(&["nonsense"], "nonsense");
        check(&["list", "--config", &absent], "absent");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_printed_alone_and_opens_the_api_as_a_member_on_the_free_tier() {
    let place = Place::new();
    let before = place.ok(&["keys", "create", "--name", "early"]);
    let server = place.start();
    let key = place.ok(&["keys", "create", "--name", "ann"]);
    assert!(key.starts_with("terse_") && key.len() > 60 && key.lines().count() == 1, "{key}");
    for key in [&before, &key] {
        let made = server.request(Method::POST, "/api/v1/urls").bearer(key);
        let made = made.json(json!({"long_url": "https://example.com/"})).send().await;
        assert_eq!(made.status, 201, "{made:?}");
        let admin = server.request(Method::GET, "/api/v1/users").bearer(key).send().await;
        assert_eq!(admin.status, 403, "nobody is an admin by being first");
    }
    let root = place.ok(&["keys", "create", "--name", "root", "--role", "admin", "--tier", "bulk"]);
    let users = server.request(Method::GET, "/api/v1/users").bearer(&root).send().await.json();
    let of = |name: &str| {
        let user = users["users"].as_array().unwrap().iter().find(|user| user["name"] == name).unwrap();
        (user["role"].as_str().unwrap().to_owned(), user["tier"].as_str().unwrap().to_owned())
    };
    assert_eq!(of("ann"), ("member".to_owned(), "free".to_owned()));
    assert_eq!(of("early"), ("member".to_owned(), "free".to_owned()));
    assert_eq!(of("root"), ("admin".to_owned(), "bulk".to_owned()));
    let keys = place.ok_json(&["keys", "list", "--json"]);
    let ann = keys.as_array().unwrap().iter().find(|key| key["name"] == "ann").unwrap();
    assert_eq!(ann["scopes"].as_array().unwrap().len(), 5);
    assert_eq!(ann["expires_at"], Value::Null);
    assert!(!place.ok(&["keys", "list"]).contains("terse_"));
    place.ok(&["keys", "revoke", &ann["id"].to_string()]);
    let list = server.request(Method::GET, "/api/v1/urls").bearer(&key).send().await;
    assert_eq!(list.status, 401, "at once");
    let reader = place.ok(&["keys", "create", "--name", "r", "--user", "ann", "--scopes", "links:read"]);
    let list = server.request(Method::GET, "/api/v1/urls").bearer(&reader).send().await;
    assert_eq!((list.status, list.json()["links"].as_array().unwrap().len()), (200, 1), "ann's link");
    let made = server.request(Method::POST, "/api/v1/urls").bearer(&reader);
    assert_eq!(made.json(json!({"long_url": "https://example.com/"})).send().await.status, 403);
}

#[test]
fn commands_act_as_the_user_that_is_named() {
    both_ways(|place| {
        let owner_of_key = |id: &Value| {
            let keys = place.ok_json(&["keys", "list", "--json"]);
            let key = keys.as_array().unwrap().iter().find(|key| key["id"] == *id).unwrap().clone();
            key["user"].as_str().unwrap().to_owned()
        };
        let make = |arguments: &[&str]| place.ok_json(&[&["keys", "create", "--json"], arguments].concat());
        assert_eq!(owner_of_key(&make(&["--name", "ann"])["id"]), "ann");
        assert_eq!(owner_of_key(&make(&["--name", "deploy script", "--user", "bob"])["id"]), "bob");
        assert_eq!(owner_of_key(&make(&["--name", "x", "--user", "local"])["id"]), "local");
        let mut command = Terse::command(&place.data());
        command.env("TERSE_USER", "eve").args(["keys", "create", "--name", "y", "--json"]);
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(owner_of_key(&made["id"]), "eve");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_the_command_line_belongs_to_the_user_that_was_named() {
    let place = Place::new();
    place.ok(&["shorten", "https://example.com/", "--alias", "anns", "--user", "ann"]);
    place.ok(&["shorten", "https://example.com/", "--alias", "locals"]);
    let key = place.key("ann");
    let server = place.start();
    let status = |code: &'static str| {
        let request = server.request(Method::GET, &format!("/api/v1/urls/{code}")).bearer(&key);
        async move { request.send().await.status }
    };
    assert_eq!((status("anns").await, status("locals").await), (200, 403));
    assert_eq!(place.ok(&["list"]).lines().count(), 2, "the command line sees all links");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn being_at_the_same_machine_gives_no_rights_over_tcp() {
    let place = Place::new();
    let server = place.start();
    place.ok(&["shorten", "https://example.com/", "--alias", "one"]);
    let check = |method: Method, path: &'static str, expected: u16| {
        let request =
            server.request(method, path).header("x-terse-user", "local").header("host", "localhost");
        async move {
            let answer = request.send().await;
            assert_eq!(answer.status, expected, "{path}: {answer:?}");
        }
    };
    check(Method::GET, "/-/local/backup", 404).await;
    check(Method::GET, "/api/v1/urls", 401).await;
    check(Method::GET, "/api/v1/urls/one", 401).await;
    check(Method::DELETE, "/api/v1/urls/one", 401).await;
    check(Method::GET, "/api/v1/keys", 401).await;
    check(Method::GET, "/api/v1/users", 401).await;
    check(Method::GET, "/api/v1/domains", 401).await;
}

#[test]
fn a_whole_short_link_names_its_domain() {
    both_ways(|place| {
        place.ok(&["domains", "add", "second.example"]);
        place.ok(&["shorten", "https://example.com/1", "--alias", "same"]);
        let second =
            place.ok(&["shorten", "https://example.com/2", "--alias", "same", "--domain", "second.example"]);
        assert!(second.contains("//second.example") && second.ends_with("/same"), "{second}");
        assert!(place.ok(&["show", &second]).contains("https://example.com/2"));
        assert!(place.ok(&["show", "https://former.example/same"]).contains("https://example.com/1"));
        place.ok(&["delete", &second]);
        assert!(place.ok(&["show", "same"]).contains("https://example.com/1"));
    });
}

#[test]
fn a_second_server_on_a_folder_is_refused() {
    let place = Place::new();
    let server = place.start();
    let mut second = Terse::command(&place.data());
    let output = second.env("TERSE_LISTEN", "127.0.0.1:0").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
    assert!(said.contains("in use by another terse") && said.contains("data"), "{said}");
    assert!(place.refused(&["restore", "--in-place"]).contains("in use by another terse"));
    // The first one is none the worse for it.
    place.ok(&["shorten", "https://example.com/"]);
    assert!(place.ok(&["doctor"]).contains("the server answers"));
    drop(server);
}

#[test]
fn a_port_in_use_is_told() {
    let (one, other) = (Place::new(), Place::new());
    let server = one.start();
    for listener in [None, Some(std::net::TcpListener::bind("127.0.0.1:0").unwrap())] {
        let address = listener.as_ref().map_or(server.address, |listener| listener.local_addr().unwrap());
        let mut command = Terse::command(&other.data());
        let output = command.env("TERSE_LISTEN", address.to_string()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
        assert!(said.contains(&format!("cannot listen on {address}")) && said.contains("in use"), "{said}");
    }
}

#[test]
fn a_deep_data_folder_works() {
    let place = Place::new();
    let deep = place.path(&format!("{}/{}", "d".repeat(120), "e".repeat(120)));
    Terse::ok(&deep, &["shorten", "https://example.com/", "--alias", "before"]);
    let server = place.start_on(&deep, &[]);
    assert!(Terse::ok(&deep, &["doctor"]).contains("the server answers"));
    let short = Terse::ok(&deep, &["shorten", "https://example.com/", "--alias", "after"]);
    assert_eq!(short, format!("http://{}/after", server.address), "by the server");
    assert_eq!(Terse::ok(&deep, &["list"]).lines().count(), 2);
}

#[test]
fn what_a_killed_server_left_behind_confuses_nobody() {
    let place = Place::new();
    let server = place.start();
    place.ok(&["shorten", "https://example.com/", "--alias", "one"]);
    server.kill();
    assert!(place.data().join("run").exists());
    let said = place.ok(&["doctor"]);
    assert!(said.contains("no server runs"), "{said}");
    assert!(place.ok(&["show", "one"]).contains("https://example.com/"));
    place.start().kill();
    place.ok(&["shorten", "https://example.com/", "--alias", "two"]);
    let server = place.start();
    assert_eq!(place.ok(&["list"]).lines().count(), 2);
    assert!(place.ok(&["doctor"]).contains("the server answers"));
    drop(server);
}

#[test]
fn commands_without_a_server_wait_for_each_other() {
    let place = Place::new();
    let commands: Vec<_> = (0..6)
        .map(|number| {
            let mut command = Terse::command(&place.data());
            let target = format!("https://example.com/{number}");
            command.args(["shorten", &target]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for command in commands {
        let output = command.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(place.ok(&["list"]).lines().count(), 6);
}

#[test]
fn only_the_owner_can_read_the_data_folder() {
    let place = Place::new();
    let server = place.start();
    place.ok(&["shorten", "https://example.com/"]);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&place.data()), 0o700);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(place.data()).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), if path.is_dir() { 0o700 } else { 0o600 }, "{path:?}");
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        [
            "clicks.db",
            "clicks.db-shm",
            "clicks.db-wal",
            "journal",
            "lock",
            "run",
            "terse.db",
            "terse.db-shm",
            "terse.db-wal",
            "visitor-salt",
        ]
    );
    for segment in std::fs::read_dir(place.data().join("journal")).unwrap() {
        assert_eq!(mode(&segment.unwrap().path()), 0o600);
    }
    let run = std::fs::read_to_string(place.data().join("run")).unwrap();
    assert_eq!(mode(Path::new(&run)), 0o700);
    drop(server);
    let open = place.path("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Terse::run(&open, &["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("chmod 700"));
}

#[test]
fn all_mistakes_of_a_configuration_are_told_at_once() {
    let place = Place::new();
    let file = place.file("terse.toml", "cache_mb = 0\nnonsense = 1\nlog_format = \"xml\"\n");
    for command in [&["serve"][..], &[], &["list"], &["shorten", "https://example.com/"]] {
        let mut terse = Terse::command(&place.data());
        terse.env("TERSE_RATE_LIMITS", "maybe").env("TERSE_CONFIG", &file);
        terse.args(command).args(["--listen", "nowhere", "--base-url", "go.example.com"]);
        let output = terse.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
        for word in ["cache_mb", "nonsense", "log_format", "rate_limits", "listen", "base_url"] {
            assert!(said.contains(word), "{word} is missing in\n{said}");
        }
        for place in ["terse.toml", "TERSE_RATE_LIMITS", "the command line"] {
            assert!(said.contains(place), "{place} is missing in\n{said}");
        }
    }
    assert!(!place.data().exists(), "nothing is made with a wrong configuration");
}

#[test]
fn a_variable_that_means_nothing_is_pointed_out() {
    let place = Place::new();
    let mut command = Terse::command(&place.data());
    command.env("TERSE_LISTEN", "127.0.0.1:0").env("TERSE_CACHE", "1").env("TERSE_USER", "ann");
    command.env("XDG_RUNTIME_DIR", place.run_dir()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    child.kill().unwrap();
    let said = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert!(said.contains("WARN") && said.contains("TERSE_CACHE") && said.contains("cache_mb"), "{said}");
    assert!(!said.contains("TERSE_USER") && !said.contains("TERSE_LISTEN"), "{said}");
    let output = Terse::command(&place.data()).env("TERSE_CACHE", "1").arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("TERSE_CACHE"));
}

#[test]
fn variables_of_others_need_not_be_text() {
    let place = Place::new();
    let mut command = Terse::command(&place.data());
    command
        .env("SOMETHING", std::ffi::OsStr::from_bytes(b"\xff\xfe"))
        .args(["shorten", "https://example.com/"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let rows: String = (0..3000).map(|row| format!("{{\"url\":\"https://example.com/{row}\"}}\n")).collect();
    place.ok(&["import", &place.file("rows.ndjson", rows)]);
    let commands: [&[&str]; 6] = [
        &["list", "--limit", "3000"],
        &["list", "--limit", "3000", "--json"],
        &["export"],
        &["export", "--format", "csv"],
        &["keys", "create", "--name", "ann"],
        &["--help"],
    ];
    for arguments in commands {
        let mut command = Terse::command(&place.data());
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    let commands = [
        "",
        "serve",
        "shorten",
        "list",
        "show",
        "update",
        "delete",
        "keys",
        "keys create",
        "keys list",
        "keys revoke",
        "domains",
        "domains add",
        "domains list",
        "import",
        "export",
        "backup",
        "restore",
        "doctor",
    ];
    for command in commands {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = place.ok(&arguments);
        assert!(help.contains("Usage: terse") && help.contains("Options of every command:"), "{help}");
        // A command's own options come first, in one block.
        let own = help.find("\nOptions:").unwrap_or(0);
        assert!(own < help.find("Options of every command:").unwrap(), "{help}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        assert!(help.matches("[env: TERSE_DATA_DIR]").count() == 1, "{help}");
    }
    assert!(place.ok(&["--version"]).starts_with("terse "));
    assert!(!place.data().exists(), "asking makes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_tells_where_to_open_it_and_how_to_make_a_key() {
    let place = Place::new();
    let mut command = Terse::command(&place.data());
    command.env("TERSE_LISTEN", "127.0.0.1:0").env("XDG_RUNTIME_DIR", place.run_dir());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    while !said.contains("make a key") || !said.ends_with('\n') {
        std::io::BufRead::read_line(&mut stdout, &mut said).unwrap();
    }
    let address = said.lines().next().unwrap().rsplit("//").next().unwrap().trim().parse().unwrap();
    let line = said.lines().find(|line| line.contains("make a key")).unwrap();
    let words: Vec<&str> = line.split("terse ").nth(1).unwrap().split_whitespace().collect();
    let key = place.ok(&words);
    let made = TestRequest::new(address, Method::POST, "/api/v1/urls").bearer(&key);
    let made = made.json(json!({"long_url": "https://example.com/"})).send().await;
    assert!(Connection::open(address).await.unwrap().get("/").await.unwrap().status == 200);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(made.status, 201, "{made:?}");
    assert!(said.contains(&format!("http://{address}")), "{said}");
    assert!(said.contains("anybody at this machine"), "{said}");
}
