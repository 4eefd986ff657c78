//! Every file of the corpora goes through its target, whole and with seeded changes: what `make corpora` runs,
//! without libFuzzer, so that the targets cannot rot.

use std::path::Path;

/// Rounds of changes a file. NARU_FUZZ_ROUNDS.
const ROUNDS: usize = 50;

#[test]
fn corpora() {
    let rounds = std::env::var("NARU_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    for (name, run) in naru_fuzz::targets::ALL {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        let texts: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).expect("a file")).collect();
        assert!(!texts.is_empty(), "{name} has no corpus");
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut count = 0;
        for (file, text) in files.iter().zip(&texts) {
            // What runs when a target panics is told by its output.
            println!("{}", file.display());
            run(text);
            for _ in 0..rounds {
                run(&random.change(text, &texts));
                count += 1;
            }
        }
        println!("{name}: {} files, {count} changes", texts.len());
    }
}

/// xorshift64*: every run makes the same changes.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) as usize % end.max(1)
    }

    fn change(&mut self, text: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
        let mut text = text.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len() + 1);
            let end = (at + self.below(16)).min(text.len());
            match self.below(5) {
                0 => drop(text.drain(at..end)),
                1 => text.insert(at, self.below(256) as u8),
                2 if at < text.len() => text[at] ^= 1 << self.below(8),
                3 if at < text.len() => text[at] = [0, 0xff, 0x7f, 0x80, b'0'][self.below(5)],
                _ => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len() + 1);
                    let to = (from + self.below(64)).min(other.len());
                    text.splice(at..end, other[from..to].iter().copied());
                }
            }
        }
        text
    }
}
