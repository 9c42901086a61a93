//! The connection loop on io_uring: one thread that answers short codes and nothing else.
//!
//! 1. `event_loop` waits for completions. A connection that is accepted gets a slot (`slots`) and one receive that
//!    lasts as long as it does, into buffers that all connections share (`buffers`).
//! 2. Bytes that came are cut into heads (`head`). A head that isn't there yet is copied out, so that its buffer can
//!    go back at once.
//! 3. The [`Handler`](super::Handler) looks the code up; a redirect is written straight into the connection's output
//!    (`answer`), any other answer by the [`Outside`]. A lookup that has to wait does so there, and its answer comes
//!    back through the `mailbox`.
//! 4. One send a connection is under way; what is answered meanwhile gathers behind it (`connection`).
//! 5. Whatever is no plain GET or HEAD of a short code, malformed heads too, goes unanswered to hyper: the connection
//!    is handed over with every byte from that request on, and does not come back.
//!
//! `ring` and `buffers` hold what is shared with the kernel, and all unsafe code.

mod event_loop;

mod answer;
mod connection;
mod head;
mod mailbox;
mod slots;

mod buffers;
mod ring;

pub use event_loop::EventLoop;
pub use head::Head;
pub use mailbox::{Mailbox, Reply};
pub use ring::Ring;

use super::{Answer, Miss};
use compact_str::CompactString;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

/// The rest of the server, as the loop needs it.
pub trait Outside {
    /// One of the connections that may be open at once.
    type Place;

    /// A place for one more connection, if there is one.
    fn admit(&self) -> Option<Self::Place>;

    /// Whether a path of this one segment belongs to the server itself.
    fn is_own_segment(segment: &str) -> bool;

    /// Who makes this request.
    fn caller<'b>(&self, peer: SocketAddr, head: &Head<'_, 'b>) -> Caller<'b>;

    /// Whether an answer with a body is to be a page.
    fn wants_page(head: &Head<'_, '_>) -> bool;

    /// Writes an answer that is no redirect.
    fn render(&self, answer: Answer, asked: &Asked, date: &str, output: &mut Vec<u8>);

    /// Waits for an answer, elsewhere than on the loop's thread.
    fn wait(&self, miss: Miss, id: &str, reply: Reply);

    /// Goes on with a connection that has asked for something else.
    fn hand_over(&self, handed: HandedOver<Self::Place>);
}

/// Who makes a request.
#[derive(Debug)]
pub struct Caller<'b> {
    /// The request's id, made or taken.
    pub id: CompactString,
    /// The address that is believed.
    pub address: IpAddr,
    /// The same, when that is worth limiting.
    pub limited_address: Option<IpAddr>,
    /// The visitor's country by the word of a trusted proxy.
    pub country: Option<&'b [u8]>,
}

/// What an answer needs to know of its request.
#[derive(Debug)]
pub struct Asked {
    /// Its id.
    pub id: CompactString,
    /// HEAD rather than GET.
    pub is_head: bool,
    /// The connection ends behind the answer.
    pub closes: bool,
    /// People look at the answer.
    pub wants_page: bool,
}

/// A connection on its way to another loop.
#[derive(Debug)]
pub struct HandedOver<P> {
    /// It.
    pub socket: OwnedFd,
    /// The other end.
    pub peer: SocketAddr,
    /// It stays one of those that may be open.
    pub place: P,
    /// Every byte from the first request that was not answered on.
    pub input: Vec<u8>,
}
