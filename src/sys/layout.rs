//! Where the linker has put the code that a container start executes (`hack/layout.ld`), and how its pages are brought
//! in at once.
//!
//! Start-up is a few hundred functions out of thousands. In the compiler's order they lie all over the program: a
//! page fault each, and with each the 15 pages around it, four times what is needed. In one place they are one call.

unsafe extern "C" {
    static naru_wait_start: u8;
    static naru_run_end: u8;
    #[cfg(not(any(test, fuzzing)))]
    static __init_array_start: u8;
    #[cfg(not(any(test, fuzzing)))]
    static __bss_start: u8;
}

/// `MADV_POPULATE_WRITE` (Linux 5.14).
const POPULATE_WRITE: libc::c_int = 23;
const PAGE: usize = 4096;

/// What a fault brings in at once, bytes, and where such a piece begins: fault_around_bytes, unless somebody has changed it.
const AROUND: usize = 64 << 10;

/// Maps the code that every container start executes, the runtime's and the init stage's: a fault each 64 KiB. Populating it
/// takes twice as long, because the kernel then looks at every page.
pub fn map_start() {
    let (start, end) = (&raw const naru_wait_start as usize, &raw const naru_run_end as usize);
    for at in (start..end).step_by(AROUND).chain([end - 1]) {
        // SAFETY: the program's own code, mapped for reading for the whole run.
        unsafe { (at as *const u8).read_volatile() };
    }
}

/// Maps the first zero pages: all variables, and what the allocator gives out first.
#[cfg(not(any(test, fuzzing)))]
pub fn populate_memory() {
    populate(&raw const __bss_start as usize, super::alloc::first_step_end());
}

/// What reading a configuration and planning a start take of the stack, bytes.
const STACK: usize = 48 << 10;

/// Maps the stack below the caller that reading a configuration and planning a start need. A fault for each page would
/// cost four times as much.
pub fn populate_stack() {
    let local = 0u8;
    let stack = &raw const local as usize;
    populate(stack - STACK, stack);
}

/// Gives back what only a start needs, before a command waits: its code but for the first 64 KiB, where that lies which is still
/// to come, and the stack below the caller. It would be taken down when the process ends, which somebody waits for.
pub fn unmap_start() {
    #[cfg(not(any(test, fuzzing)))]
    {
        let code = (&raw const naru_wait_start as usize & !(AROUND - 1)) + AROUND;
        unmap(code, &raw const __init_array_start as usize);
        let local = 0u8;
        // The red zone, and the frames of the calls to come.
        unmap(&raw const local as usize - STACK, &raw const local as usize - PAGE);
    }
}

#[cfg(not(any(test, fuzzing)))]
fn unmap(start: usize, end: usize) {
    // Code and constants are read from the file again when they are needed, and nothing lives below the stack's end.
    advise(start.next_multiple_of(PAGE), end & !(PAGE - 1), libc::MADV_DONTNEED);
}

/// Populating write-faults mapped pages and changes no content; what is not mapped is refused.
fn populate(start: usize, end: usize) {
    advise(start & !(PAGE - 1), end, POPULATE_WRITE);
}

/// madvise(2). Pages come and go as they are needed anyway: an error (an older kernel, a range that is not mapped) costs only
/// time.
fn advise(start: usize, end: usize, advice: libc::c_int) {
    // SAFETY: with the two callers' ranges and advice no content changes that is read again.
    let _ = unsafe { libc::syscall(libc::SYS_madvise, start, end.saturating_sub(start), advice) };
}
