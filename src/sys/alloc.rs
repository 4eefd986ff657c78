//! The global allocator: memory for a process that lives a millisecond.
//!
//! Blocks are cut from one region in the program's own zero pages and, when that is used up, from mapped chunks.
//! Sizes are rounded to classes, and a freed block waits on the list of its class. A block comes into being only while
//! the list of its class is empty, so there are never more of a class than were in use at once, and a command that lives
//! long (`run` in the foreground, `events`) does not grow. There are no headers: Rust gives the size back at the free.
//!
//! A cold parse of Docker's default config (9.7 KB) takes 70 us with it and 130 to 220 us with musl's allocator, and the
//! process 32 page faults instead of 56: pages are asked for in runs of eight, because a fault costs more than a page.
//!
//! The first thread that allocates owns the fast state and takes no lock. Any other thread gets a second state behind
//! a spin lock. Blocks are plain memory of their class, so one allocated here may be freed there. A process forked by
//! another thread than the owner must not allocate before its exec: the lock may be held in its copy.
//! It must not be called from signal handlers.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::ops::Range;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes of the region inside the program's zero pages: Docker's default config needs about a third of it.
const FIRST: usize = 256 << 10;
/// Bytes of a mapped chunk.
const CHUNK: usize = 1 << 20;
/// Bytes asked from the kernel at once inside a region. Measured for the least (`state`) and the most (`create`): 32 KiB
/// is best for both, 8 and 256 KiB cost 10 us more.
const STEP: usize = 32 << 10;
/// The same after a fork, when little is still to come.
const STEP_FORKED: usize = 16 << 10;
/// Larger blocks get a mapping of their own and give it back.
const LARGEST: usize = 256 << 10;
/// Every block's alignment, and the width of the small classes.
const ALIGN: usize = 16;
/// Largest alignment served: a mapping has it by nature.
const PAGE: usize = 4096;
/// Sizes up to this are rounded to `ALIGN`, larger ones to a quarter of the power of two below.
const LINEAR: usize = 256;
const CLASSES: usize = class_of(LARGEST) + 1;

/// The class of a size from 1 to [`LARGEST`].
const fn class_of(size: usize) -> usize {
    if size <= LINEAR {
        return (size - 1) / ALIGN;
    }
    let log = (size - 1).ilog2() as usize;
    let quarter = ((size - 1) >> (log - 2)) & 3;
    LINEAR / ALIGN + (log - LINEAR.ilog2() as usize) * 4 + quarter
}

/// The bytes a block of this class has.
const fn class_size(class: usize) -> usize {
    if class < LINEAR / ALIGN {
        return (class + 1) * ALIGN;
    }
    let (log, quarter) =
        ((class - LINEAR / ALIGN) / 4 + LINEAR.ilog2() as usize, (class - LINEAR / ALIGN) % 4);
    (5 + quarter) << (log - 2)
}

/// A freed block, in its own first bytes.
struct Free {
    next: Option<NonNull<Free>>,
}

/// One state: lists of freed blocks by class and the rest of the region in use.
struct Arena {
    free: [Option<NonNull<Free>>; CLASSES],
    /// Next unused byte; a multiple of [`ALIGN`].
    next: *mut u8,
    /// End of what was asked from the kernel.
    ready: *mut u8,
    /// End of the region.
    end: *mut u8,
    /// Where the region begins.
    begin: usize,
    /// What of a region was in use at the last fork: blocks in there are not taken back.
    shared: Range<usize>,
    forked: bool,
}

impl Arena {
    /// All zeroes: the program's lies in zero pages, which have no bytes in the file.
    const fn new() -> Arena {
        let null = ptr::null_mut();
        Arena {
            free: [None; CLASSES],
            next: null,
            ready: null,
            end: null,
            begin: 0,
            shared: 0..0,
            forked: false,
        }
    }

    /// A block of the class, or null if the kernel has no memory.
    #[inline]
    fn take(&mut self, class: usize, first: impl FnOnce() -> *mut u8) -> *mut u8 {
        if let Some(block) = self.free[class] {
            // SAFETY: a pointer on a list is a freed block of at least ALIGN bytes that nobody else uses; `give` wrote
            // its `next`.
            self.free[class] = unsafe { block.as_ref() }.next;
            return block.as_ptr().cast();
        }
        let size = class_size(class);
        if self.ready.addr() - self.next.addr() < size && !self.refill(size, first) {
            return ptr::null_mut();
        }
        let block = self.next;
        self.next = block.wrapping_add(size);
        block
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// `block` has the size of the class, came from an arena and is not used any more.
    #[inline]
    unsafe fn give(&mut self, block: *mut u8, class: usize) {
        if self.shared.contains(&block.addr()) {
            return;
        }
        let block = block.cast::<Free>();
        // SAFETY: by contract the block is ours alone, at least ALIGN bytes long and aligned to ALIGN.
        unsafe { block.write(Free { next: self.free[class] }) };
        self.free[class] = NonNull::new(block);
    }

    /// Changes the class of the block cut last, where it stands. False if it is not the last, if there is no room, or
    /// if a block of the new class waits on its list: were that one passed over, a buffer that grows and is freed
    /// again and again would leave a new large block behind each time.
    #[inline]
    fn resize_last(&mut self, block: *mut u8, old: usize, new: usize) -> bool {
        let (old_end, new_end) = (block.wrapping_add(class_size(old)), block.wrapping_add(class_size(new)));
        if old_end != self.next || new_end.addr() > self.end.addr() || self.free[new].is_some() {
            return false;
        }
        self.next = new_end;
        if self.next.addr() > self.ready.addr() {
            self.ready = self.next;
        }
        true
    }

    /// After a fork: goes on behind all that was made ready before. The first write to a page of that has to copy it, in both
    /// processes, and be it only to take a block back.
    fn leave_to_fork(&mut self) {
        let behind = self.ready.addr().next_multiple_of(PAGE).min(self.end.addr());
        self.next = self.next.with_addr(behind);
        self.ready = self.next;
        self.free = [None; CLASSES];
        self.shared = self.begin..behind;
        self.forked = true;
    }

    /// Makes `size` bytes ready at `next`; what is left of a region too small for them is lost.
    #[cold]
    fn refill(&mut self, size: usize, first: impl FnOnce() -> *mut u8) -> bool {
        if self.end.addr() - self.next.addr() < size {
            // The beginning of the first region is there from the start of the program on.
            let (region, ready, bytes) = match (self.end.is_null(), first()) {
                (true, region) if !region.is_null() => (region, STEP, FIRST),
                _ => (map(CHUNK), 0, CHUNK),
            };
            if region.is_null() {
                return false;
            }
            (self.next, self.ready, self.end) =
                (region, region.wrapping_add(ready), region.wrapping_add(bytes));
            self.begin = region.addr();
            if size <= ready {
                return true;
            }
        }
        let want = size.next_multiple_of(if self.forked { STEP_FORKED } else { STEP });
        let bytes = want.min(self.end.addr() - self.ready.addr());
        let start = self.ready.addr() & !(PAGE - 1);
        // SAFETY: the range lies inside a region of ours and holds no byte that would change; the kernel only makes
        // pages that a write would make later. Kernels before 5.14 answer EINVAL, and the pages come one by one.
        unsafe {
            libc::madvise(
                self.ready.with_addr(start).cast(),
                self.ready.addr() + bytes - start,
                libc::MADV_POPULATE_WRITE,
            )
        };
        self.ready = self.ready.wrapping_add(bytes);
        true
    }
}

/// Fresh zero pages, or null.
fn map(bytes: usize) -> *mut u8 {
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches nothing that exists.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED { ptr::null_mut() } else { at.cast() }
}

/// The allocator: see the head of this file. Its own fields lie right before the first region.
#[repr(C)]
pub struct Allocator {
    /// Token of the thread that owns `fast`; 0 before the first allocation.
    owner: AtomicUsize,
    fast: UnsafeCell<Arena>,
    locked: AtomicBool,
    shared: UnsafeCell<Arena>,
    first: UnsafeCell<Region>,
}

#[repr(align(4096))]
#[expect(dead_code, reason = "memory that is reached by its address alone")]
struct Region([u8; FIRST]);

// SAFETY: `fast` and `first` are reached only by the thread whose token is in `owner`, `shared` only under `locked`.
unsafe impl Sync for Allocator {}

/// The program's.
#[cfg(not(any(test, fuzzing)))]
#[global_allocator]
// SAFETY: a section of zero pages like .bss, by the one other name that the compiler takes for one (hack/layout.ld).
#[unsafe(link_section = ".llvm.linkonce.b.naru.allocator")]
static ALLOCATOR: Allocator = Allocator::new();

/// To be called in both processes after a fork: from here on blocks come from pages that the two do not share.
pub fn leave_to_fork() {
    #[cfg(not(any(test, fuzzing)))]
    ALLOCATOR.with(|arena, _| arena.leave_to_fork());
}

/// The end of what `layout::populate_memory` maps for the program's allocator.
#[cfg(not(any(test, fuzzing)))]
pub fn first_step_end() -> usize {
    ALLOCATOR.first.get() as usize + STEP
}

/// A number no other living thread has.
#[inline]
fn thread_token() -> usize {
    thread_local!(static HERE: Cell<u8> = const { Cell::new(0) });
    HERE.with(|here| ptr::from_ref(here).addr())
}

impl Allocator {
    /// An allocator that has given nothing out yet.
    pub const fn new() -> Allocator {
        Allocator {
            owner: AtomicUsize::new(0),
            fast: UnsafeCell::new(Arena::new()),
            locked: AtomicBool::new(false),
            shared: UnsafeCell::new(Arena::new()),
            first: UnsafeCell::new(Region([0; FIRST])),
        }
    }

    /// Runs `f` on this thread's state, with where its first region comes from.
    #[inline]
    fn with<T>(&self, f: impl FnOnce(&mut Arena, *mut u8) -> T) -> T {
        let token = thread_token();
        let owner = self.owner.load(Ordering::Relaxed);
        if owner == token
            || owner == 0
                && self.owner.compare_exchange(0, token, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            // SAFETY: the token is this thread's alone, so no other thread comes here; `f` does not allocate.
            return f(unsafe { &mut *self.fast.get() }, self.first.get().cast());
        }
        self.with_shared(f)
    }

    #[cold]
    fn with_shared<T>(&self, f: impl FnOnce(&mut Arena, *mut u8) -> T) -> T {
        while self.locked.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            core::hint::spin_loop();
        }
        // SAFETY: the lock is held, so this is the only reference; `f` neither allocates nor panics.
        let result = f(unsafe { &mut *self.shared.get() }, ptr::null_mut());
        self.locked.store(false, Ordering::Release);
        result
    }
}

/// True for blocks that have a mapping of their own.
#[inline]
fn is_mapped(size: usize, align: usize) -> bool {
    size > LARGEST || align > ALIGN
}

// SAFETY: blocks do not overlap (cut once, given out again only from a list), are at least as large and aligned as
// asked, and stay valid until freed; no method unwinds.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_mapped(layout.size(), layout.align()) {
            return if layout.align() > PAGE { ptr::null_mut() } else { map(layout.size()) };
        }
        self.with(|arena, first| arena.take(class_of(layout.size()), || first))
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract is that of `alloc`.
        let block = unsafe { self.alloc(layout) };
        if !block.is_null() && !is_mapped(layout.size(), layout.align()) {
            // SAFETY: the block has at least `size` bytes. Mapped blocks are zero already.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_mapped(layout.size(), layout.align()) {
            // SAFETY: such a block is one whole mapping of this size, and the caller is done with it. An error
            // (too many mappings) leaves it mapped, which is only a leak.
            unsafe { libc::munmap(block.cast(), layout.size()) };
            return;
        }
        // SAFETY: the caller gives back a block of this layout, hence of this class.
        self.with(|arena, _| unsafe { arena.give(block, class_of(layout.size())) });
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (old_mapped, new_mapped) =
            (is_mapped(layout.size(), layout.align()), is_mapped(new_size, layout.align()));
        if !old_mapped && !new_mapped {
            let (old, new) = (class_of(layout.size()), class_of(new_size));
            if old == new || self.with(|arena, _| arena.resize_last(block, old, new)) {
                return block;
            }
        }
        // SAFETY: the caller promises that the new size does not overflow with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: both blocks are valid for the smaller size and distinct; the old one is not used afterwards.
        unsafe {
            let new = self.alloc(new_layout);
            if !new.is_null() {
                ptr::copy_nonoverlapping(block, new, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A block with the pattern it was filled with.
    struct Block {
        at: *mut u8,
        layout: Layout,
        seed: u8,
    }

    // SAFETY: the bytes belong to whoever holds the block.
    unsafe impl Send for Block {}

    impl Block {
        fn new(from: &Allocator, size: usize, align: usize, seed: u8) -> Block {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the size is not zero.
            let at = unsafe { from.alloc(layout) };
            assert!(!at.is_null() && at.addr().is_multiple_of(align), "{layout:?}");
            let block = Block { at, layout, seed };
            block.fill();
            block
        }

        fn fill(&self) {
            // SAFETY: the block has that many bytes and is ours.
            unsafe { self.at.write_bytes(self.seed, self.layout.size()) };
        }

        fn check(&self, size: usize) {
            // SAFETY: the block has at least that many bytes, and they are filled.
            let bytes = unsafe { core::slice::from_raw_parts(self.at, size) };
            assert!(bytes == vec![self.seed; size], "{:?}", self.layout);
        }

        fn resize(mut self, from: &Allocator, size: usize) -> Block {
            // SAFETY: the block came from this allocator with this layout; the size is not zero.
            self.at = unsafe { from.realloc(self.at, self.layout, size) };
            assert!(!self.at.is_null());
            self.check(size.min(self.layout.size()));
            self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
            self.fill();
            self
        }

        fn free(self, from: &Allocator) {
            self.check(self.layout.size());
            // SAFETY: the block came from this allocator with this layout and is used no more.
            unsafe { from.dealloc(self.at, self.layout) };
        }
    }

    /// Numbers without order, the same in every run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % limit as u64) as usize
        }

        /// Mostly small, sometimes huge.
        fn size(&mut self) -> usize {
            let log = self.below(20);
            1 + self.below(1 << log)
        }
    }

    const ROUNDS: usize = if cfg!(miri) { 300 } else { 20_000 };

    #[test]
    fn classes_cover_every_size_and_waste_little() {
        let mut last = 0;
        for size in 1..=LARGEST {
            let class = class_of(size);
            assert!(class == last || class == last + 1, "{size}");
            last = class;
            let given = class_size(class);
            assert!(given >= size && given.is_multiple_of(ALIGN), "{size} gets {given}");
            assert!(given - size < ALIGN.max(size / 4), "{size} gets {given}");
            assert_eq!(class_of(given), class);
        }
        assert_eq!(last, CLASSES - 1);
    }

    #[test]
    fn blocks_keep_their_bytes() {
        static FROM: Allocator = Allocator::new();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut blocks = Vec::new();
        for round in 0..ROUNDS {
            match random.below(4) {
                0 if !blocks.is_empty() => {
                    let at = random.below(blocks.len());
                    Block::free(blocks.swap_remove(at), &FROM);
                }
                1 if !blocks.is_empty() => {
                    let at = random.below(blocks.len());
                    let size = random.size();
                    let block: Block = blocks.swap_remove(at);
                    blocks.push(block.resize(&FROM, size));
                }
                _ => {
                    let align = if random.below(50) == 0 { PAGE } else { 1 << random.below(5) };
                    blocks.push(Block::new(&FROM, random.size(), align, round as u8));
                }
            }
            while blocks.len() > 50 {
                blocks.swap_remove(0).free(&FROM);
            }
        }
        blocks.into_iter().for_each(|block| block.free(&FROM));
    }

    #[test]
    fn what_a_fork_shares_is_left_alone() {
        static FROM: Allocator = Allocator::new();
        let mut before: Vec<Block> = (1..120).map(|n| Block::new(&FROM, n * 16, 16, n as u8)).collect();
        before.drain(..60).for_each(|block| block.free(&FROM));
        let last = before.iter().map(|block| block.at.addr() + block.layout.size()).max().unwrap();
        FROM.with(|arena, _| arena.leave_to_fork());
        before.into_iter().for_each(|block| block.free(&FROM));
        let after: Vec<Block> = (1..120).map(|n| Block::new(&FROM, n * 16, 16, n as u8)).collect();
        assert!(after.iter().all(|block| block.at.addr() >= last.next_multiple_of(PAGE)));
        let at: Vec<usize> = after.iter().map(|block| block.at.addr()).collect();
        after.into_iter().for_each(|block| block.free(&FROM));
        assert!(at.contains(&Block::new(&FROM, 160, 16, 1).at.addr()), "what is made after it is used again");
    }

    #[test]
    fn a_long_life_does_not_grow() {
        static FROM: Allocator = Allocator::new();
        let life = |years| {
            for year in 0..years {
                let mut random = Random(88172645463325252);
                for _ in 0..50 {
                    let blocks = [0; 8].map(|_| Block::new(&FROM, random.size(), 8, year as u8));
                    let order = random.below(2);
                    for (at, block) in blocks.into_iter().enumerate() {
                        let block = if at % 2 == order { block.resize(&FROM, random.size()) } else { block };
                        block.free(&FROM);
                    }
                }
            }
            // SAFETY: only this thread uses the allocator.
            let arena = unsafe { &*FROM.fast.get() };
            (arena.next, arena.end)
        };
        let young = life(3);
        assert_eq!(life(ROUNDS / 200), young);
    }

    #[test]
    fn the_last_block_grows_where_it_stands() {
        static FROM: Allocator = Allocator::new();
        let mut block = Block::new(&FROM, 10, 1, 3);
        let at = block.at;
        for size in [100, 1000, 100_000, LARGEST, 20] {
            block = block.resize(&FROM, size);
            assert_eq!(block.at, at, "{size}");
        }
        let second = Block::new(&FROM, 16, 1, 4);
        assert_eq!(second.at, at.wrapping_add(32));
        assert_ne!(block.resize(&FROM, 64).at, at);
    }

    #[test]
    fn zeroed_blocks_are_zero() {
        static FROM: Allocator = Allocator::new();
        for size in [1, 15, 16, 300, 5000, LARGEST, LARGEST + 1] {
            Block::new(&FROM, size, 1, 0xee).free(&FROM);
            let layout = Layout::from_size_align(size, 1).unwrap();
            // SAFETY: the size is not zero, and the block has that many bytes.
            let bytes = unsafe { core::slice::from_raw_parts(FROM.alloc_zeroed(layout), size) };
            assert!(bytes.iter().all(|&byte| byte == 0), "{size}");
        }
    }

    #[test]
    fn refuses_what_it_cannot_align() {
        static FROM: Allocator = Allocator::new();
        let layout = Layout::from_size_align(8, 2 * PAGE).unwrap();
        // SAFETY: the size is not zero.
        assert!(unsafe { FROM.alloc(layout) }.is_null());
    }

    #[test]
    fn threads_may_free_what_others_allocated() {
        static FROM: Allocator = Allocator::new();
        // The owner is the first; it goes on allocating while three others do.
        let (send, receive) = mpsc::channel::<Block>();
        Block::new(&FROM, 1, 1, 0).free(&FROM);
        let threads: Vec<_> = (1..4u64)
            .map(|n| {
                let send = send.clone();
                std::thread::spawn(move || {
                    let mut random = Random(n * 0x2545_f491_4f6c_dd1d);
                    for round in 0..ROUNDS / 4 {
                        let size = random.below(2000) + 1;
                        let block = Block::new(&FROM, size, 1, round as u8);
                        match random.below(3) {
                            0 => send.send(block).unwrap(),
                            1 => block.resize(&FROM, 500).free(&FROM),
                            _ => block.free(&FROM),
                        }
                    }
                })
            })
            .collect();
        drop(send);
        let mut random = Random(7);
        for block in receive {
            let size = random.below(2000) + 1;
            let own = Block::new(&FROM, size, 1, 9);
            block.free(&FROM);
            own.free(&FROM);
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
