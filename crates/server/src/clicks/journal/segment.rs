//! One file of the journal, mapped into memory. The only place of the journal that needs `unsafe`.

use super::record::{
    ALIGNMENT, Event, Found, Place, SHAPE_AT, check, make_like, padded, read, read_checked, seal,
};
use hashbrown::DefaultHashBuilder;
use memmap2::{Advice, MmapRaw};
use std::fs::File;
use std::hash::BuildHasher;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[cfg(not(test))]
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
// The tests of the journal explore interleavings.
#[cfg(test)]
use shuttle::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Bytes before the first record.
pub const SEGMENT_HEAD_LEN: u32 = 64;
const MAGIC: &[u8; 8] = b"terseclk";
const VERSION: u32 = 1;

/// What a segment's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// The instance that writes it.
    pub node: u64,
    /// The lane that it belongs to.
    pub lane: u16,
    /// Its number: no other use of any file of this journal ever has it.
    pub number: u64,
}

impl SegmentHead {
    fn encode(&self) -> [u8; SEGMENT_HEAD_LEN as usize] {
        let mut bytes = [0; SEGMENT_HEAD_LEN as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.lane.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.node.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.number.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEAD_LEN as usize)?;
        let fits = bytes[..8] == *MAGIC
            && bytes[8..12] == VERSION.to_le_bytes()
            && bytes[60..] == crc32c::crc32c(&bytes[..60]).to_le_bytes();
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let lane = u16::from_le_bytes([bytes[12], bytes[13]]);
        fits.then(|| SegmentHead { node: number(16), lane, number: number(24) })
    }
}

/// A file in memory that is no segment now.
#[derive(Debug)]
pub struct SegmentFile {
    map: MmapRaw,
    path: PathBuf,
}

impl SegmentFile {
    /// Makes a file of zeros: every block of it exists on disk before anything is appended.
    pub fn create(path: &Path, len: u32) -> io::Result<Self> {
        let made = write_zeros(path, len).and_then(|file| SegmentFile::map(path, &file));
        if made.is_err() {
            // Half of a file is of no use, and takes room on a disk that may be full.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    /// Maps a file that is there.
    pub fn open(path: &Path) -> io::Result<Self> {
        SegmentFile::map(path, &crate::data_dir::private_file().create(false).open(path)?)
    }

    fn map(path: &Path, file: &File) -> io::Result<Self> {
        Ok(SegmentFile { map: MmapRaw::map_raw(file)?, path: path.to_owned() })
    }

    /// Memory without a file, for tests.
    #[cfg(test)]
    pub fn in_memory(len: usize) -> Self {
        let map = memmap2::MmapMut::map_anon(len).expect("memory");
        SegmentFile { map: map.into(), path: PathBuf::new() }
    }

    /// Its length in bytes.
    pub fn size(&self) -> u32 {
        u32::try_from(self.map.len()).unwrap_or(u32::MAX)
    }

    /// What its head says, if it was ever a segment.
    pub fn head(&self) -> Option<SegmentHead> {
        SegmentHead::decode(self.bytes(0, self.size().min(SEGMENT_HEAD_LEN)))
    }

    /// Begins a new use of the file. Its head is on disk, and its pages writable, when this returns. If that fails, the
    /// file comes back.
    pub fn begin(mut self, head: SegmentHead) -> Result<(Arc<Segment>, SegmentWriter), (io::Error, Self)> {
        self.bytes_mut(0, SEGMENT_HEAD_LEN).copy_from_slice(&head.encode());
        if let Err(error) = self.map.flush_range(0, SEGMENT_HEAD_LEN as usize).and_then(|()| self.populate())
        {
            return Err((error, self));
        }
        let committed = AtomicU32::new(SEGMENT_HEAD_LEN);
        let sealed = AtomicBool::new(false);
        let segment = Arc::new(Segment { head, file: self, is_old: false, committed, sealed });
        let writer = SegmentWriter {
            segment: segment.clone(),
            offset: SEGMENT_HEAD_LEN,
            index: 0,
            record: Vec::new(),
            shapes: vec![Known::default(); SHAPES_LEN],
            hasher: DefaultHashBuilder::default(),
        };
        Ok((segment, writer))
    }

    /// Makes every page writable now, so that no append waits for one, or dies of one that the disk has no room for.
    fn populate(&self) -> io::Result<()> {
        match self.map.advise_range(Advice::PopulateWrite, 0, self.map.len()) {
            // Kernels before 5.14 don't know it; there, the first touch does it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
            other => other,
        }
    }

    /// A segment of an earlier run: what is in it is found out by [`Segment::recover`].
    pub fn resume(self, head: SegmentHead) -> Arc<Segment> {
        let committed = AtomicU32::new(SEGMENT_HEAD_LEN);
        let sealed = AtomicBool::new(false);
        Arc::new(Segment { head, file: self, is_old: true, committed, sealed })
    }

    /// Removes it from the disk.
    pub fn remove(self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }

    #[allow(unsafe_code)]
    fn bytes(&self, from: u32, to: u32) -> &[u8] {
        assert!(from <= to && to <= self.size());
        // SAFETY: the range lies inside the mapping, which lives as long as `self`. Its bytes don't change while the
        // slice lives: bytes below a segment's committed offset are never written again (a new use of the file needs
        // the whole `SegmentFile`), bytes above are only read by their one writer, and the lock on the data folder
        // keeps other processes away.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(from as usize), (to - from) as usize) }
    }

    #[allow(unsafe_code)]
    fn bytes_mut(&mut self, from: u32, to: u32) -> &mut [u8] {
        assert!(from <= to && to <= self.size());
        // SAFETY: as above; `&mut self` says that nobody else looks at the file.
        unsafe {
            std::slice::from_raw_parts_mut(self.map.as_mut_ptr().add(from as usize), (to - from) as usize)
        }
    }
}

fn write_zeros(path: &Path, len: u32) -> io::Result<File> {
    use std::io::Write;
    let mut file = crate::data_dir::private_file().truncate(true).open(path)?;
    let zeros = vec![0; 64 << 10];
    let mut left = len as usize;
    while left > 0 {
        let now = left.min(zeros.len());
        file.write_all(&zeros[..now])?;
        left -= now;
    }
    file.sync_all()?;
    Ok(file)
}

/// A segment: events of one lane in the order of their appends.
#[derive(Debug)]
pub struct Segment {
    head: SegmentHead,
    file: SegmentFile,
    /// Left by an earlier run.
    is_old: bool,
    /// Bytes that hold whole records, with the head. Raised after a record's bytes are in place (Release), so that
    /// whoever reads it first (Acquire) never sees half of one.
    committed: AtomicU32,
    /// Nothing more will be appended. Set after the last commit.
    sealed: AtomicBool,
}

/// The one who appends to a segment.
#[derive(Debug)]
pub struct SegmentWriter {
    segment: Arc<Segment>,
    offset: u32,
    index: u32,
    /// The record that is being made. Apart from the file, whose memory is cold: written to it in one go, nobody waits.
    record: Vec<u8>,
    /// Whole records by the hash of their shape, the newest of those that share a place.
    shapes: Vec<Known>,
    hasher: DefaultHashBuilder,
}

/// A shape that a whole record of the segment has.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Bits of its hash that don't make its place.
    mark: u32,
    /// The record's offset; 0 for none.
    offset: u32,
}

/// Places for shapes: more than a worker meets in the minute or less in which a busy segment fills.
const SHAPES_LEN: usize = 4096;

impl SegmentWriter {
    /// Appends an event and commits it; `false` when there is no room.
    pub fn append(&mut self, event: &Event<'_>) -> bool {
        event.encode(&mut self.record);
        let hash = self.hasher.hash_one(&self.record[SHAPE_AT..]);
        let (slot, mark) = (hash as usize % SHAPES_LEN, (hash >> 32) as u32);
        let known = self.shapes[slot];
        let is_like = known.offset > 0
            && known.mark == mark
            && self.segment.shape_at(known.offset, self.offset) == Some(&self.record[SHAPE_AT..]);
        if is_like {
            make_like(&mut self.record, known.offset);
        }
        let len = padded(self.record.len());
        if len > (self.segment.file.size() - self.offset) as usize {
            return false;
        }
        if !is_like {
            self.shapes[slot] = Known { mark, offset: self.offset };
        }
        let place = Place { segment: self.segment.head.number, offset: self.offset };
        seal(&mut self.record, place, self.index);
        self.write_record();
        self.offset += len as u32;
        self.index += 1;
        self.segment.committed.store(self.offset, Ordering::Release);
        self.fetch_next();
        true
    }

    /// Has the processor fetch the memory of the next record while it does other things. Else the next atomic operation
    /// behind an append waits for it: 0.1 µs, measured.
    #[allow(unsafe_code)]
    fn fetch_next(&self) {
        #[cfg(target_arch = "x86_64")]
        for offset in [self.offset as usize, self.offset as usize + SHAPE_AT - 1] {
            use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
            let map = &self.segment.file.map;
            if offset < map.len() {
                // SAFETY: the address lies inside the mapping, and a hint touches nothing.
                unsafe { _mm_prefetch::<_MM_HINT_ET0>(map.as_ptr().add(offset).cast()) };
            }
        }
    }

    /// Says that nothing follows.
    pub fn seal(self) {
        self.segment.sealed.store(true, Ordering::Release);
    }

    #[allow(unsafe_code)]
    fn write_record(&mut self) {
        let file = &self.segment.file;
        assert!(self.offset as usize + self.record.len() <= file.map.len());
        // SAFETY: the range lies inside the mapping. Nobody else looks at bytes above the committed offset: readers
        // stop there, and there is one writer, which is borrowed mutably.
        let behind = unsafe {
            let start = file.map.as_mut_ptr().add(self.offset as usize);
            std::slice::from_raw_parts_mut(start, self.record.len())
        };
        behind.copy_from_slice(&self.record);
    }
}

/// How an old segment ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Events behind the first invalid record, as far as later ones give them away.
    pub lost: u64,
}

impl Segment {
    /// What its head says.
    pub fn head(&self) -> SegmentHead {
        self.head
    }

    /// Its length on disk, in bytes.
    pub fn size(&self) -> u32 {
        self.file.size()
    }

    /// Bytes that hold whole records, with the head.
    pub fn committed(&self) -> u32 {
        self.committed.load(Ordering::Acquire)
    }

    /// Whether it was left by an earlier run and its end is not known yet.
    pub fn needs_recovery(&self) -> bool {
        self.is_old && !self.is_sealed()
    }

    /// Whether nothing more will be appended. Ask before [`Segment::committed`]: then that is the end.
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// The event at `offset`, which lies at the start of a record below `committed`.
    pub fn event(&self, offset: u32, committed: u32) -> Option<Found<'_>> {
        read(self.file.bytes(offset, committed), |whole| self.shape_at(whole, offset))
    }

    /// The shape of the whole record at an offset below `end`, which lies at the start of a record.
    fn shape_at(&self, whole: u32, end: u32) -> Option<&[u8]> {
        let is_before = (SEGMENT_HEAD_LEN..end).contains(&whole);
        Some(read(is_before.then(|| self.file.bytes(whole, end))?, |_| None)?.shape)
    }

    /// The event at `offset` of a file that may hold anything.
    fn event_checked(&self, offset: u32) -> Option<Found<'_>> {
        let place = |offset: u32| Place { segment: self.head.number, offset };
        let shape_at = |whole: u32| {
            let is_before = (SEGMENT_HEAD_LEN..offset).contains(&whole);
            let bytes = is_before.then(|| self.file.bytes(whole, offset))?;
            Some(read_checked(place(whole), bytes, |_| None)?.shape)
        };
        read_checked(place(offset), self.behind(offset), shape_at)
    }

    fn behind(&self, offset: u32) -> &[u8] {
        self.file.bytes(offset.min(self.size()), self.size())
    }

    /// Whether there is a record at a position, or at the beginning.
    pub fn begins_at(&self, from: u32) -> bool {
        self.event_checked(from.clamp(SEGMENT_HEAD_LEN, self.size())).is_some()
    }

    /// Finds the end of a segment of an earlier run from a position on, and seals it there. What follows the first
    /// invalid record is lost: pages of a file reach the disk in no order when the power fails.
    pub fn recover(&self, from: u32) -> Recovered {
        let len = self.size();
        let mut offset = from.clamp(SEGMENT_HEAD_LEN, len).next_multiple_of(ALIGNMENT as u32);
        let mut next_index = None;
        while let Some(found) = self.event_checked(offset) {
            next_index = Some(found.index + 1);
            offset += found.len as u32;
        }
        let end = offset.min(len);
        let mut lost = 0;
        // Unless a record behind the gap gives the count, the first index is not known; then those found are counted.
        while offset < len {
            match check(Place { segment: self.head.number, offset }, self.behind(offset)) {
                Some((index, len)) => {
                    let expected = *next_index.get_or_insert(index);
                    lost += u64::from(index.saturating_sub(expected)) + 1;
                    next_index = Some(index + 1);
                    offset += len as u32;
                }
                None => offset += ALIGNMENT as u32,
            }
        }
        self.committed.store(end, Ordering::Release);
        self.sealed.store(true, Ordering::Release);
        Recovered { lost }
    }

    /// Waits until the bytes from `from` to `to` are on disk.
    pub fn flush(&self, from: u32, to: u32) -> io::Result<()> {
        self.file.map.flush_range(from as usize, to.saturating_sub(from) as usize)
    }

    /// The file, when nobody else holds the segment.
    pub fn into_file(self: Arc<Self>) -> Result<SegmentFile, Arc<Self>> {
        Arc::try_unwrap(self).map(|segment| segment.file)
    }
}
