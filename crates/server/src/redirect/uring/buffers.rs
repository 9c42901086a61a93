//! Buffers that the kernel receives into: it takes the next one when bytes are there, so that a connection that waits
//! for its client has none.

use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use memmap2::{MmapMut, MmapRaw};
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The only group of buffers.
pub const GROUP: u16 = 0;
/// Buffers of a loop. A power of two.
const COUNT: u16 = 512;
/// Bytes of one, more than the head of any usual request.
const LEN: usize = 2048;
const ENTRY_LEN: usize = size_of::<BufRingEntry>();

/// Memory that is shared with the kernel: a ring of `COUNT` entries that say which buffers it may fill, and behind it
/// the buffers.
#[derive(Debug)]
pub struct Buffers {
    memory: Arc<MmapRaw>,
    /// Where the next entry goes; the kernel sees it once it is stored in the ring.
    tail: u16,
}

/// A buffer that the kernel has filled, and that is ours until it is given back.
#[derive(Debug)]
pub struct Lent {
    id: u16,
    len: usize,
}

impl Lent {
    /// What a completion of a receive says: the kernel names each buffer once, and not again before it has got it back.
    pub fn new(id: u16, len: usize) -> Self {
        assert!(id < COUNT && len <= LEN, "the kernel keeps to the buffers that it was given");
        Lent { id, len }
    }
}

impl Buffers {
    /// Makes the buffers and gives all of them to the kernel.
    pub fn register(ring: &IoUring) -> io::Result<Self> {
        let memory = MmapMut::map_anon(usize::from(COUNT) * (ENTRY_LEN + LEN))?;
        let memory = Arc::new(MmapRaw::from(memory));
        let mut buffers = Buffers { memory, tail: 0 };
        for id in 0..COUNT {
            buffers.offer(id);
        }
        let address = buffers.memory.as_mut_ptr() as u64;
        // SAFETY: the memory is mapped, aligned to a page and long enough for `COUNT` entries, and `Ring` lets it
        // be unmapped only after all requests have completed.
        #[allow(unsafe_code)]
        unsafe {
            ring.submitter().register_buf_ring_with_flags(address, COUNT, GROUP, 0)?;
        }
        Ok(buffers)
    }

    /// What was received.
    pub fn bytes(&self, lent: &Lent) -> &[u8] {
        let start = usize::from(COUNT) * ENTRY_LEN + usize::from(lent.id) * LEN;
        // SAFETY: `Lent::new` has checked that it lies within the memory. The kernel has written `len` bytes there and
        // writes no more before `give_back`, which takes the `Lent` that is borrowed here.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr().add(start), lent.len)
        }
    }

    /// Lets the kernel fill the buffer again.
    pub fn give_back(&mut self, lent: Lent) {
        self.offer(lent.id);
    }

    /// Keeps the memory for ever, because the kernel may still write to it.
    pub fn leak(&self) {
        mem::forget(self.memory.clone());
    }

    fn offer(&mut self, id: u16) {
        let base = self.memory.as_mut_ptr();
        let start = usize::from(COUNT) * ENTRY_LEN + usize::from(id) * LEN;
        // SAFETY: entry and buffer lie within the memory, since `tail` is taken modulo `COUNT` and `id` is below it. The
        // kernel reads an entry only after the tail has moved past it, which the store below does after it is whole; it
        // never writes entries. The tail's two bytes lie in a part of the first entry that no field of ours covers.
        #[allow(unsafe_code)]
        unsafe {
            let entries = base.cast::<BufRingEntry>();
            let entry = &mut *entries.add(usize::from(self.tail % COUNT));
            entry.set_addr(base.add(start) as u64);
            entry.set_len(LEN as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            let tail = BufRingEntry::tail(entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
