//! How other threads reach the loop: they leave a letter, and write to an event that the ring reads.

use super::ring::SlotId;
use crate::redirect::Answer;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// Letters to one loop. There are at most as many as connections, and one to stop.
#[derive(Debug)]
pub struct Mailbox {
    /// Held to add a letter or to take all.
    letters: Mutex<Vec<Letter>>,
    event: OwnedFd,
}

/// What others say.
#[derive(Debug)]
pub(super) enum Letter {
    /// The answer that this connection waits for, or `None` when there will be none.
    Answer(SlotId, Option<Answer>),
    /// Accept no more, finish what is under way, and end.
    Stop,
}

/// Where an answer goes that a connection waits for. When it is dropped without one, the connection learns that.
#[derive(Debug)]
pub struct Reply {
    mailbox: Arc<Mailbox>,
    slot: SlotId,
    is_sent: bool,
}

impl Mailbox {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Mailbox { letters: Mutex::default(), event })
    }

    /// Asks the loop to stop.
    pub fn stop(&self) {
        self.leave(Letter::Stop);
    }

    fn leave(&self, letter: Letter) {
        let mut letters = self.letters.lock().expect("no code panics under this lock");
        letters.push(letter);
        let is_first = letters.len() == 1;
        drop(letters);
        // Whoever left the first letter has woken the loop, which takes all.
        if is_first {
            // It fails for an event that was written to 2^64 times and never read.
            let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        }
    }

    pub(super) fn take(&self) -> Vec<Letter> {
        mem::take(&mut self.letters.lock().expect("no code panics under this lock"))
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

impl Reply {
    pub(super) fn new(mailbox: Arc<Mailbox>, slot: SlotId) -> Self {
        Reply { mailbox, slot, is_sent: false }
    }

    /// Sends the answer.
    pub fn send(mut self, answer: Answer) {
        self.is_sent = true;
        self.mailbox.leave(Letter::Answer(self.slot, Some(answer)));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.is_sent {
            self.mailbox.leave(Letter::Answer(self.slot, None));
        }
    }
}
