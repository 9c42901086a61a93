//! Requests to the kernel and their completions.
//!
//! What the kernel reads or writes belongs to the [`Ring`] for as long as it may: bytes to send are handed in and come
//! back with their completion, received ones are lent by [`Buffers`].

use super::buffers::{Buffers, GROUP, Lent};
use io_uring::types::{CancelBuilder, Fd, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::io::Errno;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Requests that are handed to the kernel at once.
const SUBMISSIONS: u32 = 512;
/// Completions that it keeps for us; more of them cost it memory of its own.
const COMPLETIONS: u32 = 4096;

/// A place of a connection, for as long as it is that connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId {
    /// Which one.
    pub index: u32,
    /// The how many-th connection in it.
    pub generation: u32,
}

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Connections, until further notice.
    Accept,
    /// Bytes of a connection, until further notice.
    Receive(SlotId),
    /// To send.
    Send(SlotId),
    /// To say when the mailbox has something.
    Wake,
    /// To say when a second is over.
    Tick,
    /// To say when accepting may be tried again.
    Pause,
    /// To end another one, whose own completion says that it did.
    Cancel,
    /// To end a receive. An error says that it was not found, though it may go on: one with much to deliver is between two
    /// places of the kernel at times.
    CancelReceive(SlotId),
}

impl Operation {
    /// 4 bits of kind, 28 of index, 32 of generation.
    fn encode(self) -> u64 {
        let (kind, slot) = match self {
            Operation::Accept => (0, None),
            Operation::Receive(slot) => (1, Some(slot)),
            Operation::Send(slot) => (2, Some(slot)),
            Operation::Wake => (3, None),
            Operation::Tick => (4, None),
            Operation::Pause => (5, None),
            Operation::Cancel => (6, None),
            Operation::CancelReceive(slot) => (7, Some(slot)),
        };
        let slot = slot.map_or(0, |slot| u64::from(slot.index) << 32 | u64::from(slot.generation));
        kind << 60 | slot
    }

    fn decode(data: u64) -> Self {
        let slot = SlotId { index: (data >> 32) as u32 & ((1 << 28) - 1), generation: data as u32 };
        match data >> 60 {
            0 => Operation::Accept,
            1 => Operation::Receive(slot),
            2 => Operation::Send(slot),
            3 => Operation::Wake,
            4 => Operation::Tick,
            5 => Operation::Pause,
            6 => Operation::Cancel,
            _ => Operation::CancelReceive(slot),
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub struct Completion {
    /// What was asked.
    pub operation: Operation,
    /// A number that depends on it.
    pub result: Result<u32, Errno>,
    /// The connection that was accepted.
    pub accepted: Option<OwnedFd>,
    /// The buffer that holds what was received.
    pub lent: Option<Lent>,
    /// There will be more completions of the same request.
    pub has_more: bool,
}

/// A ring and the memory that the kernel uses for it.
pub struct Ring {
    ring: IoUring,
    buffers: Buffers,
    /// Bytes that are being sent, by slot.
    sends: Vec<Vec<u8>>,
    /// What a read of the mailbox's event writes.
    event: Box<[u8; 8]>,
    /// Requests that have a completion to come.
    under_way: usize,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring that the thread that [`enable`](Ring::enable)s it will use. What this kernel, or the policy of this
    /// container, does not allow fails here.
    pub fn new() -> io::Result<Self> {
        try_out()?;
        let ring = IoUring::builder()
            .setup_cqsize(COMPLETIONS)
            .setup_submit_all()
            // Only one thread uses it, and the kernel does its part of the work when that thread asks for completions
            // rather than by interrupting it. Kernels before 6.1 don't know this and refuse.
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_r_disabled()
            .build(SUBMISSIONS)?;
        let buffers = Buffers::register(&ring)?;
        Ok(Ring { ring, buffers, sends: Vec::new(), event: Box::default(), under_way: 0 })
    }

    /// Makes this thread the one that uses the ring.
    pub fn enable(&self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()
    }

    /// Accepts connections until further notice.
    pub fn accept(&mut self, listener: &impl AsFd) {
        // Without SOCK_NONBLOCK, with which the kernel would not wait for us.
        let accept = opcode::AcceptMulti::new(fd(listener)).flags(SOCK_CLOEXEC);
        self.push(accept.build(), Operation::Accept);
    }

    /// Receives bytes until further notice.
    pub fn receive(&mut self, slot: SlotId, socket: &impl AsFd) {
        self.push(opcode::RecvMulti::new(fd(socket), GROUP).build(), Operation::Receive(slot));
    }

    /// Sends what `bytes` hold from `start` on. They belong to the kernel until [`Ring::sent`] gives them back, after
    /// the completion.
    pub fn send(&mut self, slot: SlotId, socket: &impl AsFd, bytes: Vec<u8>, start: usize) {
        let index = slot.index as usize;
        if self.sends.len() <= index {
            self.sends.resize_with(index + 1, Vec::new);
        }
        assert!(self.sends[index].is_empty(), "one send a connection is under way");
        let rest = &bytes[start..];
        let send = opcode::Send::new(fd(socket), rest.as_ptr(), rest.len() as u32).flags(MSG_NOSIGNAL);
        // Moving the vector moves its bytes nowhere.
        self.sends[index] = bytes;
        self.push(send.build(), Operation::Send(slot));
    }

    /// The bytes of a send that has completed.
    pub fn sent(&mut self, slot: SlotId) -> Vec<u8> {
        mem::take(&mut self.sends[slot.index as usize])
    }

    /// Completes when somebody writes to `event`.
    pub fn wake(&mut self, event: &impl AsFd) {
        let read = opcode::Read::new(fd(event), self.event.as_mut_ptr(), self.event.len() as u32);
        self.push(read.build(), Operation::Wake);
    }

    /// Completes after a time.
    pub fn after(&mut self, time: Duration, operation: Operation) {
        let time = Timespec::from(time);
        self.push(opcode::Timeout::new(&time).build(), operation);
        // The kernel copies the time when it gets the request, which must be before the time is gone.
        self.submit();
    }

    /// Ends a request before its time.
    pub fn cancel(&mut self, operation: Operation) {
        let cancel = opcode::AsyncCancel::new(operation.encode());
        self.push(cancel.build(), Operation::Cancel);
    }

    /// Ends a receive before its time, or says that it could not.
    pub fn cancel_receive(&mut self, slot: SlotId) {
        let cancel = opcode::AsyncCancel::new(Operation::Receive(slot).encode());
        self.push(cancel.build(), Operation::CancelReceive(slot));
    }

    /// Ends everything, and waits until it has ended.
    pub fn finish(&mut self) -> io::Result<()> {
        let mut completions = Vec::new();
        self.push(opcode::AsyncCancel2::new(CancelBuilder::any()).build(), Operation::Cancel);
        while self.under_way > 0 {
            self.wait(&mut completions)?;
            completions.clear();
        }
        Ok(())
    }

    /// Hands all requests to the kernel, waits until at least one has completed, and adds what has to `completions`.
    pub fn wait(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            // A signal, or more completions than there is room for: those that are there make some.
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        let queue = self.ring.completion();
        completions.reserve(queue.len());
        for entry in queue {
            let completion = completion_of(&entry);
            self.under_way -= usize::from(!completion.has_more);
            completions.push(completion);
        }
        Ok(())
    }

    /// What was received.
    pub fn bytes(&self, lent: &Lent) -> &[u8] {
        self.buffers.bytes(lent)
    }

    /// Lets the kernel fill a buffer again.
    pub fn give_back(&mut self, lent: Lent) {
        self.buffers.give_back(lent);
    }

    fn push(&mut self, request: squeue::Entry, operation: Operation) {
        let request = request.user_data(operation.encode());
        self.under_way += 1;
        // SAFETY: whatever a request points to lives until its completion: `sends` and `event` belong to this ring, which
        // neither touches nor frees them before (`Drop` leaks them if it has to); buffers are registered; a time is
        // handed in before it ends. Descriptors are closed only after the completions of their requests.
        #[allow(unsafe_code)]
        while unsafe { self.ring.submission().push(&request) }.is_err() {
            self.submit();
        }
    }

    /// Hands all requests to the kernel.
    pub fn submit(&mut self) {
        while let Err(error) = self.ring.submit() {
            assert!(is_passing(&error), "the kernel takes requests: {error}");
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.under_way > 0 {
            // Only after a panic. What the kernel may still read or write is never freed then.
            mem::forget(mem::take(&mut self.sends));
            mem::forget(mem::take(&mut self.event));
            self.buffers.leak();
        }
    }
}

/// Asks a ring for nothing. Some policies let rings be made, and then nothing be asked of them.
fn try_out() -> io::Result<()> {
    let mut ring = IoUring::new(1)?;
    // SAFETY: this request points to nothing.
    #[allow(unsafe_code)]
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    pushed.map_err(io::Error::other)?;
    ring.submit_and_wait(1).map(drop)
}

const SOCK_CLOEXEC: i32 = rustix::net::SocketFlags::CLOEXEC.bits() as i32;
const MSG_NOSIGNAL: i32 = rustix::net::SendFlags::NOSIGNAL.bits() as i32;

fn fd(socket: &impl AsFd) -> Fd {
    Fd(socket.as_fd().as_raw_fd())
}

fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::INTR, Errno::AGAIN, Errno::BUSY];
    error.raw_os_error().is_some_and(|code| passing.iter().any(|errno| errno.raw_os_error() == code))
}

fn completion_of(entry: &cqueue::Entry) -> Completion {
    let operation = Operation::decode(entry.user_data());
    let result = match entry.result() {
        result @ 0.. => Ok(result as u32),
        error => Err(Errno::from_raw_os_error(-error)),
    };
    let accepted = match (operation, result) {
        // SAFETY: the result of an accept is a new descriptor, and each completion is taken off its queue once.
        #[allow(unsafe_code)]
        (Operation::Accept, Ok(descriptor)) => Some(unsafe { OwnedFd::from_raw_fd(descriptor as i32) }),
        _ => None,
    };
    let len = result.unwrap_or_default() as usize;
    let lent = cqueue::buffer_select(entry.flags()).map(|id| Lent::new(id, len));
    Completion { operation, result, accepted, lent, has_more: cqueue::more(entry.flags()) }
}
