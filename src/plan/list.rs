//! Lists of numbers as the kernel writes them: `0-3,7` for processors and memory nodes.

use anyhow::{Context, Result, bail};

/// Highest number that is accepted, far beyond any machine: it bounds the mask.
const MAX: usize = 64 * 1024;

/// Longest text, bytes: eight thousand ranges, which bounds the time.
const LONGEST: usize = 64 << 10;

/// The list as a bit mask; nothing for an empty text. Spaces around and empty elements are allowed, as in runc.
pub fn mask(text: &str, pointer: &str) -> Result<Option<Vec<u64>>> {
    if text.len() > LONGEST {
        bail!("{pointer}: is longer than {LONGEST} bytes");
    }
    let mut mask: Vec<u64> = Vec::new();
    for range in text.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let number = |part: &str| -> Result<usize> {
            let digits = part.bytes().all(|byte| byte.is_ascii_digit());
            let number = part.parse().ok().filter(|&number: &usize| digits && number <= MAX);
            number.with_context(|| format!("{pointer}: {part:?} in {text:?} is not a number up to {MAX}"))
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            bail!("{pointer}: {range:?} in {text:?} ends before it begins");
        }
        mask.resize(mask.len().max(last / 64 + 1), 0);
        (first..=last).for_each(|bit| mask[bit / 64] |= 1 << (bit % 64));
    }
    if mask.is_empty() && !text.is_empty() {
        bail!("{pointer}: {text:?} names nothing");
    }
    Ok((!mask.is_empty()).then_some(mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_become_masks() {
        for (text, wanted) in [
            ("0", Some(vec![1])),
            ("0-3,7", Some(vec![0x8f])),
            (" 1 ,, 3-4 ", Some(vec![0x1a])),
            ("63-64", Some(vec![1 << 63, 1])),
            ("65536", Some([vec![0; 1024], vec![1]].concat())),
            ("", None),
        ] {
            assert_eq!(mask(text, "/x").unwrap(), wanted, "{text}");
        }
        for bad in ["a", "-1", "1-", "3-1", "65537", "1-2-3", "+1", ",", "0x1", "99999999999999999999"] {
            assert!(mask(bad, "/x").unwrap_err().to_string().starts_with("/x: "), "{bad}");
        }
        let long = "0-65536,".repeat(8193);
        assert_eq!(mask(&long, "/x").unwrap_err().to_string(), "/x: is longer than 65536 bytes");
        assert_eq!(mask(&"0-7,".repeat(16_384), "/x").unwrap(), Some(vec![255]));
    }
}
