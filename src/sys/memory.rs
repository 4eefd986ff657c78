//! `memcpy`, `memmove`, `memcmp` and `bcmp` in the place of musl's, on x86-64.
//!
//! musl copies everything by `rep movsq`, which takes the processor some 50 ns to begin with, and compares byte by byte. Nearly all
//! that is copied here are a few bytes (keys and strings of a configuration): reading Docker's took 0.25 ms for that alone.

use std::arch::asm;
use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};

/// What is longer is copied by `rep movsb`.
const FEW: usize = 128;

/// The C library's.
///
/// # Safety
/// C11 7.24.2.1: `n` bytes can be read at `src` and written at `dest`; the two do not overlap.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { if n <= FEW { copy_few(dest, src, n) } else { copy_up(dest, src, n) } };
    dest
}

/// The C library's.
///
/// # Safety
/// C11 7.24.2.2: `n` bytes can be read at `src` and written at `dest`.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    let begins_within = (dest as usize).wrapping_sub(src as usize) < n;
    // SAFETY: the caller's promise; `copy_few` reads all before it writes, and where the destination begins within the source the
    // end is copied first.
    unsafe {
        if n <= FEW {
            copy_few(dest, src, n);
        } else if begins_within {
            copy_down(dest, src, n);
        } else {
            copy_up(dest, src, n);
        }
    }
    dest
}

/// The C library's.
///
/// # Safety
/// C11 7.24.4.1: `n` bytes can be read at both.
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, n: usize) -> i32 {
    let mut at = 0;
    // SAFETY: `at + 8 <= n`, and `at < n`.
    unsafe {
        while at + 8 <= n {
            let (a, b) = (load::<u64>(left.add(at)), load::<u64>(right.add(at)));
            if a != b {
                return if a.swap_bytes() < b.swap_bytes() { -1 } else { 1 };
            }
            at += 8;
        }
        while at < n {
            let (a, b) = (load::<u8>(left.add(at)), load::<u8>(right.add(at)));
            if a != b {
                return i32::from(a) - i32::from(b);
            }
            at += 1;
        }
    }
    0
}

/// BSD's: `memcmp` without an order.
///
/// # Safety
/// As [`memcmp`].
#[cfg_attr(not(any(test, fuzzing)), unsafe(no_mangle))]
pub unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, n: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(left, right, n) }
}

/// # Safety
/// A `T` can be read at `at`, whatever its alignment, and any bytes are one.
#[inline(always)]
unsafe fn load<T: Copy>(at: *const u8) -> T {
    // SAFETY: the caller's promise.
    unsafe { at.cast::<T>().read_unaligned() }
}

/// The first and the last bytes of a piece, as two `T` that may overlap: all of it, where it is no longer than both.
///
/// # Safety
/// As [`memmove`]; `n` is at least the size of a `T`, of which any bytes are one.
#[inline(always)]
unsafe fn copy_ends<T: Copy>(dest: *mut u8, src: *const u8, n: usize) {
    let last = n - size_of::<T>();
    // SAFETY: both lie within the `n` bytes; both are read before one is written.
    unsafe {
        let ends: (T, T) = (load(src), load(src.add(last)));
        dest.cast::<T>().write_unaligned(ends.0);
        dest.add(last).cast::<T>().write_unaligned(ends.1);
    }
}

/// At most [`FEW`] bytes, all read before the first is written. No loop: the compiler would make a call of memcpy of it.
///
/// # Safety
/// As [`memmove`].
#[inline(always)]
unsafe fn copy_few(dest: *mut u8, src: *const u8, n: usize) {
    const SIZE: usize = size_of::<__m128i>();
    // SAFETY: `copy_ends` is called with at least the size of its type. In the last case 64 < n <= 128, so that the four pieces at
    // either end lie within the `n` bytes and cover them; all are in registers before the first is written.
    unsafe {
        match n {
            0 => {}
            1 => dest.write(src.read()),
            2..4 => copy_ends::<u16>(dest, src, n),
            4..8 => copy_ends::<u32>(dest, src, n),
            8..16 => copy_ends::<u64>(dest, src, n),
            16..=32 => copy_ends::<__m128i>(dest, src, n),
            33..=64 => copy_ends::<[__m128i; 2]>(dest, src, n),
            _ => {
                let piece = |at: usize| _mm_loadu_si128(src.add(at).cast());
                let put = |at: usize, piece| _mm_storeu_si128(dest.add(at).cast(), piece);
                let last = n - 4 * SIZE;
                let (a, b, c, d) = (piece(0), piece(SIZE), piece(2 * SIZE), piece(3 * SIZE));
                let (e, f) = (piece(last), piece(last + SIZE));
                let (g, h) = (piece(last + 2 * SIZE), piece(last + 3 * SIZE));
                put(0, a);
                put(SIZE, b);
                put(2 * SIZE, c);
                put(3 * SIZE, d);
                put(last, e);
                put(last + SIZE, f);
                put(last + 2 * SIZE, g);
                put(last + 3 * SIZE, h);
            }
        }
    }
}

/// # Safety
/// As [`memmove`]; the destination does not begin within the source.
#[inline(always)]
unsafe fn copy_up(dest: *mut u8, src: *const u8, n: usize) {
    // SAFETY: writes `n` bytes at `dest`, from the first on; the direction flag is clear (System V ABI).
    unsafe {
        asm!("rep movsb", inout("rcx") n => _, inout("rdi") dest => _, inout("rsi") src => _,
            options(nostack, preserves_flags));
    }
}

/// # Safety
/// As [`memmove`].
#[cold]
unsafe fn copy_down(dest: *mut u8, src: *const u8, n: usize) {
    // SAFETY: writes `n` bytes at `dest`, from the last on, and clears the direction flag again.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") n => _, inout("rdi") dest.add(n - 1) => _,
            inout("rsi") src.add(n - 1) => _, options(nostack));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that differ from their neighbours.
    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7 + at / 256) as u8).collect()
    }

    #[test]
    fn any_length_is_copied_and_nothing_beside_it() {
        for n in (0..300).chain([4095, 4096, 9000]) {
            let src = pattern(n);
            let mut dest = vec![0xa5; n + 32];
            // SAFETY: 16 + n bytes lie within the 32 + n.
            let end = unsafe { memcpy(dest.as_mut_ptr().add(16), src.as_ptr(), n) };
            assert_eq!(end as usize, dest.as_ptr() as usize + 16);
            assert_eq!(&dest[16..16 + n], &src[..], "{n}");
            assert!(dest[..16].iter().chain(&dest[16 + n..]).all(|&byte| byte == 0xa5), "{n}");
        }
    }

    #[test]
    fn what_overlaps_is_moved() {
        for n in (0..300).chain([1000]) {
            for (from, to) in [(0, 1), (1, 0), (0, 7), (7, 0), (0, 64), (64, 0), (0, 300), (300, 0), (9, 9)] {
                let before = pattern(n + 300);
                let mut bytes = before.clone();
                // SAFETY: at most 300 + n bytes are touched.
                unsafe { memmove(bytes.as_mut_ptr().add(to), bytes.as_ptr().add(from), n) };
                let mut expected = before.clone();
                expected.copy_within(from..from + n, to);
                assert_eq!(bytes, expected, "{n} from {from} to {to}");
            }
        }
    }

    #[test]
    fn the_first_byte_that_differs_decides() {
        for n in 0..40 {
            let left = pattern(n);
            let compare = |right: &[u8]| {
                // SAFETY: both have `n` bytes.
                unsafe {
                    let order = memcmp(left.as_ptr(), right.as_ptr(), n);
                    assert_eq!(bcmp(left.as_ptr(), right.as_ptr(), n) == 0, order == 0);
                    order.cmp(&0)
                }
            };
            assert_eq!(compare(&left), std::cmp::Ordering::Equal);
            for at in 0..n {
                for by in [1, 0x7f, 0x80, 0xff] {
                    let mut right = left.clone();
                    right[at] = right[at].wrapping_add(by);
                    right[at + 1..].fill(0);
                    assert_eq!(compare(&right), left.cmp(&right), "{n} bytes, at {at}");
                }
            }
        }
    }
}
