//! The other floor: what answering a redirect costs with one thread and `io_uring`.
//!
//! As `floor_epoll` it looks at no path and no header. One multishot accept and one multishot receive for each
//! connection are all that it asks for; input lands in buffers that it lends to the kernel, and answers of one round
//! leave with the call that waits for the next one.

// Operations point to memory that must stay where it is until the kernel is done with it.
#![allow(unsafe_code)]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, Submitter, cqueue, opcode, squeue};
use memmap2::MmapMut;
use rustix::net::sockopt::set_tcp_nodelay;
use terse_bench::{ANSWER, HeadEnds};

const QUEUE_LEN: u32 = 4096;
const BUFFERS: u16 = 2048;
const BUFFER_LEN: usize = 2048;
const BUFFER_GROUP: u16 = 0;
/// Most requests that are answered with one send; a client that sends more at once gets several.
const PIPELINED_MAX: usize = 64;
const ACCEPT: u64 = u64::MAX;
const SEND: u64 = u64::MAX - 1;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let listener = TcpListener::bind(address)?;
    // Accepted sockets take this over.
    set_tcp_nodelay(&listener, true)?;
    println!("listening on http://{}", listener.local_addr()?);

    let answers = ANSWER.repeat(PIPELINED_MAX);
    let mut ring: IoUring =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(QUEUE_LEN)?;
    let mut buffers = Buffers::lend(&ring.submitter())?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let (submitter, queue, mut completions) = ring.split();
    let mut out = Out { submitter, queue };
    let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build().user_data(ACCEPT);
    out.push(&accept)?;
    loop {
        out.submit_and_wait()?;
        completions.sync();
        for completion in &mut completions {
            match completion.user_data() {
                ACCEPT => {
                    let fd = check(completion.result())? as RawFd;
                    let slot = fd as usize;
                    if connections.len() <= slot {
                        connections.resize_with(slot + 1, || None);
                    }
                    // SAFETY: the kernel has just given us this descriptor, and nobody else has it.
                    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
                    connections[slot] = Some(Connection { _socket: socket, ends: HeadEnds::default() });
                    out.receive(fd)?;
                    if !cqueue::more(completion.flags()) {
                        out.push(&accept)?;
                    }
                }
                // Only a send that failed tells; its connection ends with the receive.
                SEND => {}
                fd => {
                    let (fd, len) = (fd as RawFd, completion.result());
                    let mut count = 0;
                    if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                        if let Some(connection) = &mut connections[fd as usize] {
                            count = connection.ends.count(buffers.get(buffer, len));
                        }
                        buffers.give_back(buffer);
                    }
                    while count > 0 {
                        let together = count.min(PIPELINED_MAX);
                        out.send(fd, &answers[..together * ANSWER.len()])?;
                        count -= together;
                    }
                    if cqueue::more(completion.flags()) {
                        continue;
                    }
                    if len > 0 || len == -rustix::io::Errno::NOBUFS.raw_os_error() {
                        out.receive(fd)?;
                    } else {
                        connections[fd as usize] = None;
                    }
                }
            }
        }
        buffers.publish();
    }
}

/// A connection, found by its descriptor.
struct Connection {
    /// Dropping it closes it.
    _socket: OwnedFd,
    ends: HeadEnds,
}

/// What the kernel is to do next.
struct Out<'a> {
    submitter: Submitter<'a>,
    queue: squeue::SubmissionQueue<'a>,
}

impl Out<'_> {
    fn receive(&mut self, fd: RawFd) -> io::Result<()> {
        self.push(&opcode::RecvMulti::new(Fd(fd), BUFFER_GROUP).build().user_data(fd as u64))
    }

    /// Sends all of `answers`, which must live as long as the ring; only a failure is heard of.
    fn send(&mut self, fd: RawFd, answers: &[u8]) -> io::Result<()> {
        let send = opcode::Send::new(Fd(fd), answers.as_ptr(), answers.len() as u32)
            .flags(rustix::net::RecvFlags::WAITALL.bits() as i32)
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(SEND);
        self.push(&send)
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: what entries point to, answers and buffers, lives until the process ends.
        while unsafe { self.queue.push(entry) }.is_err() {
            self.queue.sync();
            self.submitter.submit()?;
            self.queue.sync();
        }
        Ok(())
    }

    fn submit_and_wait(&mut self) -> io::Result<()> {
        self.queue.sync();
        match self.submitter.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.queue.sync();
        Ok(())
    }
}

/// Memory lent to the kernel, which says of each input in which buffer it lies.
struct Buffers {
    ring: MmapMut,
    memory: Vec<u8>,
    tail: u16,
}

impl Buffers {
    fn lend(submitter: &Submitter<'_>) -> io::Result<Self> {
        // A mapping begins at a page, as the ring must.
        let ring = MmapMut::map_anon(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let mut buffers = Buffers { ring, memory: vec![0; usize::from(BUFFERS) * BUFFER_LEN], tail: 0 };
        // SAFETY: the mapping has room for that many entries and stays until the process ends.
        unsafe {
            submitter.register_buf_ring_with_flags(buffers.ring.as_ptr() as u64, BUFFERS, BUFFER_GROUP, 0)?;
        }
        (0..BUFFERS).for_each(|buffer| buffers.give_back(buffer));
        buffers.publish();
        Ok(buffers)
    }

    fn get(&self, buffer: u16, len: i32) -> &[u8] {
        let begin = usize::from(buffer) * BUFFER_LEN;
        &self.memory[begin..begin + usize::try_from(len).unwrap_or(0)]
    }

    fn give_back(&mut self, buffer: u16) {
        let address = self.memory[usize::from(buffer) * BUFFER_LEN..].as_ptr() as u64;
        let place = usize::from(self.tail % BUFFERS);
        // SAFETY: the place lies in the mapping, and the kernel reads it only once the tail is past it.
        let entry = unsafe { &mut *self.ring.as_mut_ptr().cast::<BufRingEntry>().add(place) };
        entry.set_addr(address);
        entry.set_len(BUFFER_LEN as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the ring begins with its tail's entry, and the kernel reads the tail with acquire.
        let tail = unsafe { &*BufRingEntry::tail(self.ring.as_ptr().cast()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}
