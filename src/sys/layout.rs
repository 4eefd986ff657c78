//! Where the linker has put the code that a container start executes (`hack/layout.ld`), and how its pages are brought
//! in at once.
//!
//! Start-up is a few hundred functions out of thousands. In the compiler's order they lie all over the program: a
//! page fault each, and with each the 15 pages around it, four times what is needed. In one place they are one call.

use super::check;

unsafe extern "C" {
    static naru_init_start: u8;
    static naru_init_end: u8;
    static naru_parent_end: u8;
}

/// `MADV_POPULATE_READ`, `MADV_POPULATE_WRITE` (Linux 5.14).
const POPULATE_READ: libc::c_int = 22;
const POPULATE_WRITE: libc::c_int = 23;
const PAGE: usize = 4096;

/// Maps the code of a container start, the runtime's and the init stage's.
pub fn populate_start() {
    populate(&raw const naru_init_start as usize, &raw const naru_parent_end as usize, POPULATE_READ);
}

/// Maps the code of the init stage.
pub fn populate_init() {
    populate(&raw const naru_init_start as usize, &raw const naru_init_end as usize, POPULATE_READ);
}

/// Maps the stack below the caller that reading a configuration and planning a start need. A fault for each page would
/// cost four times as much.
pub fn populate_stack() {
    const STACK: usize = 24 << 10;
    let local = 0u8;
    let stack = &raw const local as usize;
    populate(stack - STACK, stack, POPULATE_WRITE);
}

/// Pages are mapped as they are needed anyway: an error (an older kernel, a range that is not mapped) costs only time.
fn populate(start: usize, end: usize, advice: libc::c_int) {
    let start = start & !(PAGE - 1);
    if end > start {
        // SAFETY: populating reads or write-faults mapped pages and changes no content; what is not mapped is refused.
        let _ = check(unsafe { libc::syscall(libc::SYS_madvise, start, end - start, advice) });
    }
}
