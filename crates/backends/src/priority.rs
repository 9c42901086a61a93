//! Which threads go first when there are more of them than processors.

/// How much nicer a thread is that gives way: on a busy processor it gets a third of another one's share.
#[cfg(target_os = "linux")]
const GIVING_WAY: i32 = 5;

/// Lets other threads go before this one, for work that redirects are not to wait for. On Linux, where each thread has
/// a nice value of its own (sched(7)); elsewhere nothing changes.
pub fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(GIVING_WAY) {
        tracing::debug!(%error, "Could not lower the priority of a thread: {error}");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    /// Of this thread.
    fn nice_value() -> i32 {
        getpriority_process(None).unwrap()
    }

    #[test]
    fn one_thread_gives_way_and_no_other() {
        let before = nice_value();
        let there = std::thread::spawn(|| {
            give_way();
            nice_value()
        });
        // 19 is the nicest.
        assert_eq!(there.join().unwrap(), (before + GIVING_WAY).min(19));
        assert_eq!(nice_value(), before);
    }
}
