//! The global allocator: memory for a process that lives a millisecond.
//!
//! Blocks are cut from one region in the program's own zero pages and, when that is used up, from mapped chunks.
//! Sizes are rounded to classes, and a freed block waits on the list of its class, so that a command that lives long
//! (`run` in the foreground, `events`) does not grow. There are no headers: Rust gives the size back at the free.
//!
//! musl's own allocator takes about twice as long to read an engine's config (figures beside the tests); this one
//! also asks the kernel for its pages in runs of sixteen, because a page fault costs more than the page.
//!
//! The first thread that allocates owns the fast state and takes no lock. Any other thread gets a second state behind
//! a spin lock. Blocks are plain memory of their class, so one allocated here may be freed there. A process forked by
//! another thread than the owner must not allocate before its exec: the lock may be held in its copy.
//! It must not be called from signal handlers.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, UnsafeCell};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Bytes of the region inside the program's zero pages: Docker's default config needs about a third of it.
const FIRST: usize = 256 << 10;
/// Bytes of a mapped chunk.
const CHUNK: usize = 1 << 20;
/// Bytes asked from the kernel at once inside a region.
const STEP: usize = 64 << 10;
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
}

impl Arena {
    const fn new() -> Arena {
        Arena { free: [None; CLASSES], next: ptr::null_mut(), ready: ptr::null_mut(), end: ptr::null_mut() }
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
        let block = block.cast::<Free>();
        // SAFETY: by contract the block is ours alone, at least ALIGN bytes long and aligned to ALIGN.
        unsafe { block.write(Free { next: self.free[class] }) };
        self.free[class] = NonNull::new(block);
    }

    /// Changes the size of the block cut last, where it stands. False if it is not the last or there is no room.
    #[inline]
    fn resize_last(&mut self, block: *mut u8, old: usize, new: usize) -> bool {
        if block.wrapping_add(old) != self.next || self.end.addr() - block.addr() < new {
            return false;
        }
        self.next = block.wrapping_add(new);
        if self.next.addr() > self.ready.addr() {
            self.ready = self.next;
        }
        true
    }

    /// Makes `size` bytes ready at `next`; what is left of a region too small for them is lost.
    #[cold]
    fn refill(&mut self, size: usize, first: impl FnOnce() -> *mut u8) -> bool {
        if self.end.addr() - self.next.addr() < size {
            let (region, bytes) = match (self.end.is_null(), first()) {
                (true, region) if !region.is_null() => (region, FIRST),
                _ => (map(CHUNK), CHUNK),
            };
            if region.is_null() {
                return false;
            }
            (self.next, self.ready, self.end) = (region, region, region.wrapping_add(bytes));
        }
        let want = (size + STEP - 1) / STEP * STEP;
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

/// The allocator: see the head of this file.
pub struct Allocator {
    /// Token of the thread that owns `fast`; 0 before the first allocation.
    owner: AtomicUsize,
    fast: UnsafeCell<Arena>,
    locked: AtomicBool,
    shared: UnsafeCell<Arena>,
    first: UnsafeCell<Region>,
}

#[repr(align(4096))]
struct Region([u8; FIRST]);

// SAFETY: `fast` and `first` are reached only by the thread whose token is in `owner`, `shared` only under `locked`.
unsafe impl Sync for Allocator {}

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
            if old == new || self.with(|arena, _| arena.resize_last(block, class_size(old), class_size(new)))
            {
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
