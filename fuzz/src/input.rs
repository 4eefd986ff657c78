//! Bytes as decisions: what a target that needs structure makes of what the fuzzer gives. Never fails; at the end of the
//! bytes all decisions are the first choice.

/// The bytes that are left.
pub struct Input<'a>(pub &'a [u8]);

/// Numbers at which something changes.
const NUMBERS: [u64; 32] = [
    0,
    1,
    2,
    3,
    5,
    7,
    10,
    63,
    64,
    100,
    127,
    255,
    256,
    1000,
    1024,
    4095,
    4096,
    32_767,
    65_535,
    65_536,
    1_000_000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x7fff_ffff_ffff_fffe,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    0xffff_ffff_ffff_ffff,
];

impl<'a> Input<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let number: usize = if end <= 256 {
            self.byte().into()
        } else {
            u16::from_le_bytes([self.byte(), self.byte()]).into()
        };
        number % end
    }

    /// True once in `of` times.
    pub fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == of - 1
    }

    pub fn pick<'b, T>(&mut self, from: &'b [T]) -> &'b T {
        &from[self.below(from.len())]
    }

    /// A number that is likely to matter, or near one, or any.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            kind @ 0..128 => NUMBERS[usize::from(kind) % NUMBERS.len()],
            128..160 => self.byte().into(),
            160..176 => self.pick(&NUMBERS).wrapping_add(self.byte().into()),
            176..192 => self.pick(&NUMBERS).wrapping_sub(self.byte().into()),
            192..208 => 1 << (self.byte() % 64),
            208..232 => u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()]).into(),
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// One of `words`, or some text of its own.
    pub fn text(&mut self, words: &[&str]) -> String {
        let choice = usize::from(self.byte());
        match words.get(choice % (words.len() + 2)) {
            Some(word) => (*word).to_owned(),
            None => {
                let length = self.byte() % 24;
                String::from_utf8_lossy(self.bytes(length.into())).into_owned()
            }
        }
    }
}
