//! Backups: consistent under load, private, restored into empty folders only, and never a code twice afterwards.

use crate::support::{Connection, Method, Place, Terse, Value, json};
use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn create(server: &Terse, key: &str, count: usize) -> Vec<String> {
    let rows = vec![json!({"long_url": "https://example.com/"}); count];
    let mut connection = Connection::open(server.address).await.unwrap();
    let made = connection.post("/api/v1/urls/bulk", key, json!(rows)).await.unwrap().json();
    let code = |result: &Value| result["link"]["short_code"].as_str().unwrap().to_owned();
    made["results"].as_array().unwrap().iter().map(code).collect()
}

#[track_caller]
fn check_disjoint(given: &[String], later: &[String], count: usize) {
    let given: HashSet<&String> = given.iter().collect();
    assert_eq!(later.len(), count);
    let again: Vec<&String> = later.iter().filter(|code| given.contains(code)).collect();
    assert!(again.is_empty(), "given again: {again:?}");
}

/// A plain copy of a folder's files.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else {
            std::fs::copy(path, to.join(name)).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_holds_what_was_answered_before_it() {
    let place = Place::new();
    let server = place.start();
    let key = place.key("load");
    let answered: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let mut work = tokio::task::JoinSet::new();
    for worker in 0..4 {
        let mut connection = Connection::open(server.address).await.unwrap();
        let (key, answered) = (key.clone(), answered.clone());
        work.spawn(async move {
            for number in 0.. {
                let target = format!("https://example.com/{worker}/{number}");
                let link = json!({"long_url": target});
                let Some(made) = connection.post("/api/v1/urls", &key, link).await else { return };
                let code = made.json()["short_code"].as_str().unwrap().to_owned();
                answered.lock().unwrap().push((code, target));
            }
        });
    }
    let count = || answered.lock().unwrap().len();
    while count() < 200 {
        assert!(work.try_join_next().is_none(), "all create links");
        tokio::task::yield_now().await;
    }
    let before = answered.lock().unwrap().clone();
    let file = place.argument("backup");
    let data = place.data();
    let said = tokio::task::spawn_blocking(move || Terse::ok_json(&data, &["backup", &file, "--json"]));
    let said = said.await.unwrap();
    let after = count();
    while count() < after + 50 {
        assert!(work.try_join_next().is_none(), "all go on");
        tokio::task::yield_now().await;
    }
    server.kill();
    work.join_all().await;
    let file = place.path("backup");
    assert_eq!(said["bytes"], std::fs::metadata(&file).unwrap().len());
    assert_eq!(mode(&file), 0o600);
    let left: Vec<_> =
        std::fs::read_dir(place.data()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("backup-")), "{left:?}");

    let second = place.path("second/deep");
    Terse::ok(&second, &["restore", file.to_str().unwrap()]);
    assert_eq!(mode(&second), 0o700);
    for entry in std::fs::read_dir(&second).unwrap() {
        assert_eq!(mode(&entry.unwrap().path()), 0o600);
    }
    let restored = place.start_on(&second, &[]);
    let mut connection = Connection::open(restored.address).await.unwrap();
    for (code, target) in &before {
        let followed = connection.get(&format!("/{code}")).await.unwrap();
        assert_eq!((followed.status, followed.header("location")), (302, Some(target.as_str())), "{code}");
    }
    let made = connection.post("/api/v1/urls", &key, json!({"long_url": "https://example.com/"})).await;
    assert_eq!(made.unwrap().status, 201, "keys come along");
}

#[test]
fn a_backup_goes_to_stdout_and_works_without_a_server() {
    let place = Place::new();
    place.ok(&["shorten", "https://example.com/", "--alias", "one"]);
    let output = place.run(&["backup", "-"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let file = place.file("backup", &output.stdout);
    let second = place.path("second");
    Terse::ok(&second, &["restore", &file]);
    assert!(Terse::ok(&second, &["show", "one"]).contains("https://example.com/"));
    let said = place.refused(&["backup", &place.argument("no/such/folder")]);
    assert!(said.contains("no/such/folder"), "{said}");
}

#[test]
fn a_folder_that_holds_anything_is_refused_and_stays_as_it_is() {
    let place = Place::new();
    place.ok(&["shorten", "https://example.com/", "--alias", "one"]);
    let file = place.argument("backup");
    place.ok(&["backup", &file]);
    let stranger = place.path("stranger");
    std::fs::create_dir(&stranger).unwrap();
    std::fs::write(stranger.join("letter"), "dear").unwrap();
    for folder in [place.data(), stranger.clone()] {
        let content = |folder: &Path| {
            let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = entries
                .filter(|path| path.is_file())
                .map(|path| (path.clone(), std::fs::read(path).unwrap()))
                .collect();
            files.sort();
            files
        };
        let before = content(&folder);
        let output = Terse::run(&folder, &["restore", &file]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{said}");
        assert!(said.contains("is not empty"), "{said}");
        assert_eq!(content(&folder), before);
    }
    let output = Terse::run(&stranger, &["restore", "--in-place"]);
    assert!(!output.status.success() && !stranger.join("lock").exists(), "{output:?}");
}

/// A file that is no good backup is refused with this word, and the target stays empty.
#[track_caller]
fn check_refused(place: &Place, name: &str, content: Option<&[u8]>, word: &str) {
    let file = place.argument(name);
    if let Some(content) = content {
        std::fs::write(&file, content).unwrap();
    }
    for target in [place.path("absent"), place.path("empty")] {
        let output = Terse::run(&target, &["restore", &file]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{name}: {said}");
        assert!(said.contains(name) && said.contains(word), "{name}: {said}");
        let left = std::fs::read_dir(&target).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{name}: files in {target:?}");
    }
}

#[test]
fn files_that_are_no_intact_backups_are_refused_and_leave_nothing() {
    let place = Place::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    std::fs::create_dir(place.path("folder")).unwrap();
    let rows: String = (0..3000).map(|row| format!("{{\"url\":\"https://example.com/{row}\"}}\n")).collect();
    place.ok(&["import", &place.file("rows.ndjson", rows)]);
    place.ok(&["backup", &place.argument("good")]);
    let good = std::fs::read(place.path("good")).unwrap();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    let middle = good.len() / 2 / 4096 * 4096;
    check_refused(&place, "missing", None, "cannot read");
    check_refused(&place, "folder", None, "");
    check_refused(&place, "nothing", Some(b""), "not a terse store");
    check_refused(&place, "text", Some(b"long_url\nhttps://example.com/\n"), "not a terse store");
    check_refused(&place, "noise", Some(&vec![0xa5; 50_000]), "not a terse store");
    check_refused(&place, "header", Some(&good[..100]), "");
    check_refused(&place, "half", Some(&good[..good.len() / 2]), "");
    check_refused(&place, "pages", Some(&good[..middle]), "");
    check_refused(&place, "short", Some(&good[..good.len() - 1]), "");
    check_refused(&place, "hole", Some(&with(middle, &[0; 4096])), "");
    check_refused(&place, "garbled", Some(&with(middle, &[0xff; 4096])), "");
    // The application id and the format are at these places of an SQLite header.
    check_refused(&place, "foreign", Some(&with(68, &[0, 0, 0, 7])), "not a terse store");
    check_refused(&place, "newer", Some(&with(60, &[0, 0, 0, 99])), "newer terse");
    let target = place.path("empty");
    Terse::ok(&target, &["restore", &place.argument("good")]);
    assert_eq!(
        Terse::ok_json(&target, &["list", "--limit", "5000", "--json"]).as_array().unwrap().len(),
        3000
    );
}

#[tokio::test]
async fn no_code_that_was_given_after_a_backup_is_given_again_after_its_restore() {
    let place = Place::new();
    let key = place.key("load");
    let server = place.start();
    let before = create(&server, &key, 50).await;
    place.ok(&["backup", &place.argument("backup")]);
    let since = create(&server, &key, 100).await;
    server.kill();
    let second = place.path("second");
    Terse::ok(&second, &["restore", &place.argument("backup")]);
    let restored = place.start_on(&second, &[]);
    let mut connection = Connection::open(restored.address).await.unwrap();
    assert_eq!(connection.get(&format!("/{}", before[0])).await.unwrap().status, 302);
    assert_eq!(connection.get(&format!("/{}", since[0])).await.unwrap().status, 404);
    let later = create(&restored, &key, 100_000).await;
    check_disjoint(&[before, since].concat(), &later, 100_000);
}

/// The folder is copied when `end` has ended the server, made safe, and both go on: they give out different codes.
async fn check_in_place(end: impl FnOnce(Terse), has_log: bool) {
    let place = Place::new();
    let key = place.key("load");
    let server = place.start();
    let before = create(&server, &key, 2_000).await;
    end(server);
    let second = place.path("second");
    copy(&place.data(), &second);
    let log = std::fs::metadata(second.join("terse.db-wal")).map_or(0, |log| log.len());
    assert_eq!(log > 0, has_log, "{log} bytes of write-ahead log");
    let said = Terse::ok(&second, &["restore", "--in-place"]);
    assert!(said.contains("ready to serve from"), "{said}");
    let original = place.start();
    let copied = place.start_on(&second, &[]);
    let mut connection = Connection::open(copied.address).await.unwrap();
    for code in before.iter().step_by(100) {
        assert_eq!(connection.get(&format!("/{code}")).await.unwrap().status, 302);
    }
    let here = create(&original, &key, 100).await;
    let there = create(&copied, &key, 21_000).await;
    check_disjoint(&[before, here].concat(), &there, 21_000);
}

#[tokio::test]
async fn a_copy_of_a_stopped_folder_is_made_safe_in_place() {
    check_in_place(|server| assert_eq!(server.terminate(10), Some(0)), false).await;
}

#[tokio::test]
async fn a_copy_of_a_killed_folder_is_made_safe_in_place() {
    check_in_place(Terse::kill, true).await;
}

#[test]
fn a_command_on_a_copy_never_reaches_the_server_of_the_original() {
    let place = Place::new();
    let server = place.start();
    place.ok(&["shorten", "https://example.com/", "--alias", "original"]);
    let second = place.path("second");
    copy(&place.data(), &second);
    assert!(second.join("run").exists());
    Terse::ok(&second, &["restore", "--in-place"]);
    copy(&place.data(), &place.path("third"));
    for folder in [second, place.path("third")] {
        Terse::ok(&folder, &["shorten", "https://example.com/", "--alias", "copied"]);
        assert!(Terse::ok(&folder, &["doctor"]).contains("no server runs"));
    }
    assert!(place.refused(&["show", "copied"]).contains("URL_NOT_FOUND"));
    drop(server);
}

#[tokio::test]
async fn statistics_are_backed_up_and_restored_when_asked() {
    let place = Place::new();
    let key = place.key("ann");
    let server = place.start();
    place.ok(&["shorten", "https://example.com/", "--alias", "one", "--user", "ann"]);
    for _ in 0..3 {
        assert_eq!(server.request(Method::GET, "/one").send().await.status, 302);
    }
    let [links, clicks] = ["links.db", "clicks.db"].map(|name| place.argument(name));
    let made = place.ok_json(&["backup", &links, "--clicks", &clicks, "--json"]);
    assert!(made["bytes"].as_u64().unwrap() > 0 && made["clicks_bytes"].as_u64().unwrap() > 0);
    assert_eq!(server.terminate(20), Some(0));
    for bad in [&links, &place.argument("absent")] {
        let other = place.path("bad");
        let output = Terse::run(&other, &["restore", &links, "--clicks", bad]);
        assert!(!output.status.success(), "{output:?}");
        assert!(!other.join("terse.db").exists(), "nothing is left of it");
    }
    let restored = place.path("restored");
    Terse::ok(&restored, &["restore", &links, "--clicks", &clicks]);
    let server = place.start_on(&restored, &[]);
    assert_eq!(server.request(Method::GET, "/one").send().await.status, 302);
    let begin = std::time::Instant::now();
    loop {
        let stats = server.request(Method::GET, "/api/v1/urls/one/stats").bearer(&key).send().await.json();
        if stats["clicks_total_all"] == 4 {
            break;
        }
        assert!(begin.elapsed().as_secs() < 20, "{stats}");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
