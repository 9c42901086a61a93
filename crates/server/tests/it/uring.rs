//! What io_uring's loop does for itself: it is chosen or does without, and hands connections over.

use crate::support::raw::RawConnection;
use crate::support::{Logged, Place, Terse, TestApp, json};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Makes a system call fail in a command, as the policies of containers do.
#[allow(unsafe_code)]
fn forbid(command: &mut Command, call: libc::c_long, errno: i32) {
    use libc::{
        BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO,
    };
    let step = |code: u32, jump: (u8, u8), value: u32| libc::sock_filter {
        code: code as u16,
        jt: jump.0,
        jf: jump.1,
        k: value,
    };
    let forbid = move || {
        // The number of the call is what the filter's data begin with.
        let mut steps = [
            step(BPF_LD | BPF_W | BPF_ABS, (0, 0), 0),
            step(BPF_JMP | BPF_JEQ | BPF_K, (0, 1), call as u32),
            step(BPF_RET | BPF_K, (0, 0), SECCOMP_RET_ERRNO | errno as u32),
            step(BPF_RET | BPF_K, (0, 0), SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: both calls read their arguments only, and `filter` and `steps` live until they have returned.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) == 0
        };
        if done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec this makes two system calls, and neither allocates nor locks.
    unsafe { command.pre_exec(forbid) };
}

async fn ask(server: &Logged) -> (u16, u16) {
    let mut connection = RawConnection::open(server.address).await;
    connection.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /unknown HTTP/1.1\r\nhost: x\r\n\r\n").await;
    (connection.answer().await.status, connection.answer().await.status)
}

#[tokio::test]
async fn the_loop_is_chosen_and_logged() {
    for (io, expected) in [
        ("auto", "Connections are served by io_uring"),
        ("uring", "Connections are served by io_uring"),
        ("tokio", "Connections are served by hyper"),
    ] {
        let place = Place::new();
        let server = Logged::start(&place, &[("TERSE_LOG", "info"), ("TERSE_IO", io)]);
        assert_eq!(ask(&server).await, (200, 404));
        let log = server.log();
        assert_eq!(log.matches("Connections are served by").count(), 1, "{log}");
        assert!(log.contains(expected), "{io}: {log}");
    }
}

#[tokio::test]
async fn without_io_uring_hyper_serves_and_the_log_says_why() {
    let (setup, enter, register) =
        (libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register);
    for (call, errno, why) in [
        (setup, libc::EPERM, "the policy of its container"),
        (setup, libc::EACCES, "the policy of its container"),
        (setup, libc::ENOSYS, "this system has none"),
        (setup, libc::EINVAL, "the kernel is older"),
        (setup, libc::ENOMEM, "not enough memory"),
        (enter, libc::EPERM, "the policy of its container"),
        (register, libc::EPERM, "the policy of its container"),
    ] {
        let place = Place::new();
        let variables = [("TERSE_LOG", "info")];
        let server = Logged::start_under(&place, &variables, "", |command| forbid(command, call, errno));
        assert_eq!(ask(&server).await, (200, 404));
        let log = server.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains("io_uring")).collect();
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains("served by hyper") && lines[0].contains(why), "{log}");
    }
}

#[test]
fn a_server_that_must_have_io_uring_does_not_start_without() {
    let place = Place::new();
    let mut command = Terse::command(&place.data());
    command.env("TERSE_IO", "uring").env("TERSE_LISTEN", "127.0.0.1:0").stdin(Stdio::null());
    forbid(&mut command, libc::SYS_io_uring_setup, libc::EPERM);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code().is_some_and(|code| code != 0), "{said}");
    assert!(said.contains("cannot use io_uring") && said.contains("io = auto"), "{said}");
}

#[tokio::test]
async fn a_connection_that_asks_for_more_goes_on_with_hyper() {
    let app = TestApp::with(&[("io", "uring")]).await;
    let code = app.link(&app.key("ann").await, json!({"long_url": "https://example.com/"})).await;
    let handed_over = || app.running.app.metrics.connections_handed_over.get();
    let before = handed_over();
    let mut connection = RawConnection::open(app.address()).await;
    let get = format!("GET /{code} HTTP/1.1\r\nhost: x\r\n\r\n");
    for _ in 0..3 {
        connection.send(&get).await;
        assert_eq!(connection.answer().await.status, 302);
    }
    assert_eq!(handed_over(), before);
    // In the middle of a row of requests, with the beginning of another one behind it.
    let more = format!("{get}GET /health HTTP/1.1\r\nhost: x\r\n\r\n{get}GET /");
    connection.send(&more).await;
    for status in [302, 200, 302] {
        assert_eq!(connection.answer().await.status, status);
    }
    connection.send(&get["GET /".len()..]).await;
    assert_eq!(connection.answer().await.status, 302);
    assert_eq!(handed_over(), before + 1);
    assert_eq!(app.running.app.metrics.connections.get(), 1);
}
