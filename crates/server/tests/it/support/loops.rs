//! Both connection loops.

/// Makes a test for each connection loop of functions that take its name, as the key `io` has it.
macro_rules! on_both_loops {
    ($($(#[$attribute:meta])* $test:ident),* $(,)?) => {
        mod on_tokio {
            $($(#[$attribute])* #[tokio::test] async fn $test() { super::$test("tokio").await; })*
        }

        // Where io_uring can't be had, these fail: what nobody tries is not tested.
        #[cfg(target_os = "linux")]
        mod on_uring {
            $($(#[$attribute])* #[tokio::test] async fn $test() { super::$test("uring").await; })*
        }
    };
}

pub(crate) use on_both_loops;
