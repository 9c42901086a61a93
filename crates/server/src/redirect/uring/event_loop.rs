//! The loop: waits for completions, and does what they call for.

use super::answer;
use super::connection::{Connection, Fate, Sending};
use super::head::{self, Head, Parsed, Visiting};
use super::mailbox::{Letter, Mailbox, Reply};
use super::ring::{Completion, Operation, Ring, SlotId};
use super::slots::Slots;
use super::{Asked, HandedOver, Outside};
use crate::redirect::{
    ACCEPT_PAUSE, Answer, HEAD_LEN_MAX, HEADERS_LEN_MAX, Handler, Lookup, Refusal, Request, UNSENT_TIMEOUT,
};
use rustix::io::Errno;
use rustix::net::getpeername;
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How often deadlines are looked at, and the date is made anew.
const TICK: Duration = Duration::from_secs(1);
/// Empty output buffers that are kept for the next answers.
const SPARES_LEN_MAX: usize = 256;
/// A larger one is not kept.
const SPARE_CAPACITY_MAX: usize = 8 << 10;
/// What a new one has room for: a few redirects.
const OUTPUT_CAPACITY: usize = 1 << 10;

/// A loop with its connections.
#[derive(Debug)]
pub struct EventLoop<O: Outside> {
    ring: Ring,
    /// `None` once no more connections are accepted.
    listener: Option<TcpListener>,
    /// The last attempt to accept failed, and was logged.
    cannot_accept: bool,
    slots: Slots<O::Place>,
    answers: Answers<O>,
}

/// What makes answers: everything but the connections and the kernel.
#[derive(Debug)]
struct Answers<O> {
    outside: O,
    handler: Arc<Handler>,
    /// For the head of a request, and between two requests of a connection.
    head_timeout: Duration,
    mailbox: Arc<Mailbox>,
    date: String,
    /// Seconds since the loop began.
    tick: u32,
    is_stopping: bool,
    spares: Vec<Vec<u8>>,
}

impl<O: Outside> EventLoop<O> {
    /// A loop on this thread, which accepts from `listener` and can be reached by `mailbox`.
    pub fn new(
        ring: Ring,
        listener: TcpListener,
        mailbox: Arc<Mailbox>,
        handler: Arc<Handler>,
        head_timeout: Duration,
        outside: O,
    ) -> io::Result<Self> {
        // The kernel waits only for descriptors that would let us wait, too.
        listener.set_nonblocking(false)?;
        ring.enable()?;
        let answers = Answers {
            outside,
            handler,
            head_timeout,
            mailbox,
            date: answer::date(),
            tick: 0,
            is_stopping: false,
            spares: Vec::new(),
        };
        Ok(EventLoop { ring, listener: Some(listener), cannot_accept: false, slots: Slots::new(), answers })
    }

    /// Serves until the mailbox says to stop, and then until every connection has ended.
    pub fn run(mut self) -> io::Result<()> {
        self.accept();
        self.ring.wake(&*self.answers.mailbox);
        self.ring.after(TICK, Operation::Tick);
        let mut completions = Vec::new();
        while !self.answers.is_stopping || !self.slots.is_empty() {
            self.ring.wait(&mut completions)?;
            for completion in completions.drain(..) {
                self.complete(completion);
            }
        }
        self.ring.finish()
    }

    fn complete(&mut self, completion: Completion) {
        match completion.operation {
            Operation::Receive(slot) => self.received(slot, completion),
            Operation::Send(slot) => self.sent(slot, completion.result),
            Operation::Accept => self.accepted(completion),
            Operation::Wake => {
                for letter in self.answers.mailbox.take() {
                    self.open(letter);
                }
                self.ring.wake(&*self.answers.mailbox);
            }
            Operation::Tick => {
                self.tick();
                self.ring.after(TICK, Operation::Tick);
            }
            Operation::Pause => self.accept(),
            Operation::Cancel => {}
            Operation::CancelReceive(slot) => {
                if completion.result.is_err()
                    && let Some(connection) = self.slots.get_mut(slot)
                {
                    connection.is_pausing = false;
                    self.settle(slot);
                }
            }
        }
    }

    fn accept(&mut self) {
        if let Some(listener) = &self.listener {
            self.ring.accept(listener);
        }
    }

    fn accepted(&mut self, completion: Completion) {
        match (completion.accepted, completion.result) {
            (Some(socket), _) => {
                self.cannot_accept = false;
                self.welcome(socket);
                if !completion.has_more {
                    self.accept();
                }
            }
            (None, Err(error)) if self.listener.is_some() => {
                // The kernel says so each time that it is asked, be there a connection or not.
                if !mem::replace(&mut self.cannot_accept, true) {
                    tracing::warn!(%error, "Could not accept a connection: {error}");
                }
                self.ring.after(ACCEPT_PAUSE, Operation::Pause);
            }
            (None, _) => {}
        }
    }

    fn welcome(&mut self, socket: OwnedFd) {
        // A client that has gone away again has no name.
        let peer = getpeername(&socket).ok().flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
        let (Some(peer), false) = (peer, self.answers.is_stopping) else { return };
        let Some(place) = self.answers.outside.admit() else { return };
        let slot = self.slots.insert(Connection::new(socket, peer, place, self.answers.head_deadline()));
        self.settle(slot);
    }

    fn received(&mut self, slot: SlotId, completion: Completion) {
        let connection = self.slots.get_mut(slot);
        if let Some(connection) = connection {
            if !completion.has_more {
                connection.is_receiving = false;
                connection.is_pausing = false;
            }
            match (&completion.lent, completion.result) {
                (Some(lent), _) => self.answers.take(slot, connection, self.ring.bytes(lent)),
                (None, Ok(_)) => connection.has_ended = true,
                // All buffers were filled, and will be back before the next receive is handed in; or it was our wish.
                (None, Err(Errno::NOBUFS | Errno::CANCELED)) => {}
                (None, Err(_)) => connection.fate = Fate::Broken,
            }
        }
        if let Some(lent) = completion.lent {
            self.ring.give_back(lent);
        }
        self.settle(slot);
    }

    fn sent(&mut self, slot: SlotId, result: Result<u32, Errno>) {
        let bytes = self.ring.sent(slot);
        let Some(connection) = self.slots.get_mut(slot) else { return };
        let Some(sending) = connection.sending.take() else { return };
        match result {
            Ok(taken) if taken > 0 && connection.fate != Fate::Broken => {
                let sent = sending.sent + taken as usize;
                if sent < sending.len {
                    // The peer is slow; what it took gives it more time.
                    connection.sending = Some(Sending { sent, ..sending });
                    connection.deadline = self.answers.unsent_deadline();
                    self.ring.send(slot, &connection.socket, bytes, sent);
                } else {
                    self.answers.keep(bytes);
                    connection.deadline = self.answers.head_deadline();
                }
                self.answers.catch_up(slot, connection);
            }
            _ => connection.fate = Fate::Broken,
        }
        self.settle(slot);
    }

    fn open(&mut self, letter: Letter) {
        match letter {
            Letter::Answer(slot, answer) => {
                let Some(connection) = self.slots.get_mut(slot) else { return };
                let Some(asked) = connection.waiting.take() else { return };
                connection.deadline = self.answers.head_deadline();
                match answer {
                    Some(answer) => {
                        self.answers.write(connection, answer, *asked);
                        self.answers.catch_up(slot, connection);
                    }
                    None => connection.fate = Fate::Broken,
                }
                self.settle(slot);
            }
            Letter::Stop => {
                self.answers.is_stopping = true;
                self.ring.cancel(Operation::Accept);
                // Nothing that names the listener may reach the kernel after its descriptor is another one's.
                self.ring.submit();
                self.listener = None;
                for slot in self.slots.iter().map(|(slot, _)| slot).collect::<Vec<_>>() {
                    self.settle(slot);
                }
            }
        }
    }

    fn tick(&mut self) {
        self.answers.tick += 1;
        self.answers.date = answer::date();
        let tick = self.answers.tick;
        let is_late = |connection: &Connection<O::Place>| {
            connection.deadline < tick && (connection.waiting.is_none() || connection.sending.is_some())
        };
        let late: Vec<SlotId> =
            self.slots.iter().filter(|(_, connection)| is_late(connection)).map(|(slot, _)| slot).collect();
        for slot in late {
            if let Some(connection) = self.slots.get_mut(slot) {
                connection.fate = Fate::Broken;
            }
            self.settle(slot);
        }
    }

    /// Asks the kernel for what a connection needs after something has changed, and lets go of one that has ended.
    fn settle(&mut self, slot: SlotId) {
        let Some(connection) = self.slots.get_mut(slot) else { return };
        if connection.fate == Fate::Broken {
            end_receive(&mut self.ring, slot, connection);
            if connection.sending.is_some() {
                self.ring.cancel(Operation::Send(slot));
            }
            if connection.is_released() {
                self.slots.remove(slot);
            }
            return;
        }
        if connection.sending.is_none() && !connection.output.is_empty() {
            let bytes = mem::take(&mut connection.output);
            connection.sending = Some(Sending { len: bytes.len(), sent: 0 });
            connection.deadline = self.answers.unsent_deadline();
            self.ring.send(slot, &connection.socket, bytes, 0);
        }
        let is_idle = connection.fate == Fate::Open && connection.waiting.is_none() && !connection.is_behind;
        let is_over = is_idle && self.answers.is_stopping && connection.input.is_empty();
        if is_idle && connection.has_ended {
            // The beginning of a head without its end is malformed, and so hyper's.
            connection.fate = if connection.input.is_empty() { Fate::Closing } else { Fate::HandingOver };
        } else if is_over && !connection.is_receiving {
            // Until the receive has ended, a request may come in that is to be answered.
            connection.fate = Fate::Closing;
        }
        let wants_bytes = connection.wants_bytes() && !is_over;
        if wants_bytes && !connection.is_receiving {
            connection.is_receiving = true;
            self.ring.receive(slot, &connection.socket);
        } else if !wants_bytes {
            end_receive(&mut self.ring, slot, connection);
        }
        let is_leaving = matches!(connection.fate, Fate::Closing | Fate::HandingOver);
        if is_leaving && connection.waiting.is_none() && connection.is_sent() && connection.is_released() {
            let Some(connection) = self.slots.remove(slot) else { return };
            if connection.fate == Fate::HandingOver {
                let Connection { socket, peer, place, input, .. } = connection;
                self.answers.outside.hand_over(HandedOver { socket, peer, place, input });
            }
        }
    }
}

/// Asks for the end of a receive that is under way, once.
fn end_receive<P>(ring: &mut Ring, slot: SlotId, connection: &mut Connection<P>) {
    if connection.is_receiving && !mem::replace(&mut connection.is_pausing, true) {
        ring.cancel_receive(slot);
    }
}

impl<O: Outside> Answers<O> {
    /// Bytes have come: answers the requests in them, and keeps what is left.
    fn take(&mut self, slot: SlotId, connection: &mut Connection<O::Place>, bytes: &[u8]) {
        if connection.input.is_empty() && connection.may_answer() {
            let answered = self.answer_all(slot, connection, bytes);
            connection.input.extend_from_slice(&bytes[answered..]);
            return;
        }
        connection.input.extend_from_slice(bytes);
        // A head ends with a line feed: until one comes there is nothing new to be found.
        if bytes.contains(&b'\n') || connection.input.len() >= HEAD_LEN_MAX {
            connection.is_behind = true;
        }
        self.catch_up(slot, connection);
    }

    /// Answers requests that had to wait, as far as that is possible now.
    fn catch_up(&mut self, slot: SlotId, connection: &mut Connection<O::Place>) {
        if !connection.is_behind || !connection.may_answer() {
            return;
        }
        let mut input = mem::take(&mut connection.input);
        let answered = self.answer_all(slot, connection, &input);
        if answered == input.len() {
            // A connection that is silent keeps no buffer.
            return;
        }
        input.drain(..answered);
        connection.input = input;
    }

    /// Answers the requests at the beginning of `bytes`; how many bytes they are.
    fn answer_all(&mut self, slot: SlotId, connection: &mut Connection<O::Place>, bytes: &[u8]) -> usize {
        let mut at = 0;
        connection.is_behind = false;
        while at < bytes.len() {
            if !connection.may_answer() {
                connection.is_behind = true;
                break;
            }
            let rest = &bytes[at..];
            let mut room = [const { MaybeUninit::uninit() }; HEADERS_LEN_MAX];
            match head::parse(rest, &mut room, O::is_own_segment) {
                Parsed::Partial if rest.len() < HEAD_LEN_MAX => break,
                Parsed::Partial | Parsed::Other => {
                    connection.fate = Fate::HandingOver;
                    break;
                }
                Parsed::Request(head, len) => {
                    self.answer(slot, connection, &head);
                    at += len;
                }
            }
        }
        at
    }

    fn answer(&mut self, slot: SlotId, connection: &mut Connection<O::Place>, head: &Head<'_, '_>) {
        let caller = self.outside.caller(connection.peer, head);
        let request = Request {
            is_head: head.is_head,
            host: Some(head.host),
            code: head.code,
            query: head.query,
            address: caller.address,
            limited_address: caller.limited_address,
            headers: &Visiting { head, country: caller.country },
        };
        // A panic is to cost no more than the connection, as it does on hyper's loop.
        let lookup = catch_unwind(AssertUnwindSafe(|| self.handler.lookup(&request)));
        let Ok(lookup) = lookup else {
            connection.fate = Fate::Broken;
            return;
        };
        let wants_page = !matches!(lookup, Lookup::Ready(Answer::Reveal(_))) && O::wants_page(head);
        let asked = Asked { id: caller.id, is_head: head.is_head, closes: head.closes, wants_page };
        match lookup {
            Lookup::Ready(answer) => {
                if let Answer::Reveal(_) = answer {
                    tracing::debug!(request_id = asked.id.as_str(), "Redirected {}", head.code);
                }
                self.write(connection, answer, asked);
            }
            Lookup::Miss(miss) => {
                let reply = Reply::new(self.mailbox.clone(), slot);
                self.outside.wait(*miss, &asked.id, reply);
                connection.waiting = Some(Box::new(asked));
            }
        }
    }

    /// Adds an answer to the connection's output.
    fn write(&mut self, connection: &mut Connection<O::Place>, answer: Answer, mut asked: Asked) {
        asked.closes |= self.is_stopping;
        if asked.closes {
            connection.fate = Fate::Closing;
        }
        if connection.output.capacity() == 0 {
            connection.output = self.spares.pop().unwrap_or_else(|| Vec::with_capacity(OUTPUT_CAPACITY));
        }
        let output = &mut connection.output;
        match answer {
            Answer::Reveal(reveal) if answer::is_safe(&reveal) => {
                answer::write(&reveal, &asked.id, asked.is_head, asked.closes, &self.date, output);
            }
            Answer::Reveal(_) => {
                self.outside.render(Answer::Refuse(Refusal::Unavailable), &asked, &self.date, output);
            }
            answer => self.outside.render(answer, &asked, &self.date, output),
        }
    }

    /// Keeps an output buffer for the next answer.
    fn keep(&mut self, mut bytes: Vec<u8>) {
        if self.spares.len() < SPARES_LEN_MAX && bytes.capacity() <= SPARE_CAPACITY_MAX {
            bytes.clear();
            self.spares.push(bytes);
        }
    }

    fn head_deadline(&self) -> u32 {
        self.deadline(self.head_timeout)
    }

    fn unsent_deadline(&self) -> u32 {
        self.deadline(UNSENT_TIMEOUT)
    }

    /// The tick under way is already partly over, and is not counted.
    fn deadline(&self, timeout: Duration) -> u32 {
        self.tick.saturating_add(timeout.as_secs() as u32)
    }
}
