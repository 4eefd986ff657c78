//! Which of several matching rules of one system call wins, when they ask for different actions. Called by `plan::seccomp::choice`.
//!
//! libseccomp does not try rules in the profile's order: it keeps a tree of comparisons of 32-bit words and tries, at each level, later
//! arguments before earlier ones, equality before upper before lower bounds, and the narrower bound or the larger value first; within one
//! comparison the profile's order holds. Real profiles lean on that (Podman's: `socket` with argument 0 not 16 is allowed, 40 is not).
//! Its tree has faults where rules of different actions share a comparison; this order is the one it means, without those. Pairs that
//! it refuses with EEXIST (an action already decided by the same comparisons) go by the profile's order here.

use super::rules::Condition;
use oci_spec::runtime::LinuxSeccompOperator as Op;
use std::cmp::Ordering;

/// One comparison of a word as libseccomp's tree holds it.
#[derive(Clone, Copy)]
struct Step {
    /// Twice the argument's index, plus one for the high word.
    word: u8,
    op: Op,
    mask: u32,
    value: u32,
}

impl Step {
    /// Whether both are one comparison in the tree: the same up to which branch they take.
    fn merges(&self, other: &Step) -> bool {
        let test = |step: &Step| match step.op {
            Op::ScmpCmpEq | Op::ScmpCmpNe => 0,
            Op::ScmpCmpMaskedEq => 1,
            // The high word is always tested for "greater".
            _ if step.word & 1 == 1 => 2,
            Op::ScmpCmpGt | Op::ScmpCmpLe => 2,
            Op::ScmpCmpGe | Op::ScmpCmpLt => 3,
        };
        self.word == other.word
            && test(self) == test(other)
            && self.mask == other.mask
            && self.value == other.value
    }

    /// Tried first: less.
    fn cmp(&self, other: &Step) -> Ordering {
        let class = |op: Op| match op {
            Op::ScmpCmpEq | Op::ScmpCmpNe | Op::ScmpCmpMaskedEq => 0,
            Op::ScmpCmpLe | Op::ScmpCmpLt => 1,
            Op::ScmpCmpGe | Op::ScmpCmpGt => 2,
        };
        other.word.cmp(&self.word).then(class(self.op).cmp(&class(other.op))).then(match self.op {
            Op::ScmpCmpLe | Op::ScmpCmpLt => self.value.cmp(&other.value),
            _ => other.value.cmp(&self.value),
        })
    }
}

/// The places of `cases` (each the conditions of one rule, sorted by index) in the order in which they are to be tried.
pub fn order(cases: &[Vec<Condition>], wide: bool) -> Vec<usize> {
    let steps: Vec<Vec<Step>> = cases.iter().map(|case| steps(case, wide)).collect();
    let mut sorted = Vec::with_capacity(cases.len());
    level(&(0..cases.len()).collect::<Vec<_>>(), 0, &steps, &mut sorted);
    sorted
}

fn steps(case: &[Condition], wide: bool) -> Vec<Step> {
    let mut steps = Vec::with_capacity(4);
    for c in case.iter() {
        if c.mask as u32 == 0 && (!wide || c.mask == 0) {
            continue;
        }
        let step = |shift: u32| Step {
            word: c.index * 2,
            op: c.op,
            mask: (c.mask >> shift) as u32,
            value: (c.value >> shift) as u32,
        };
        if wide {
            steps.push(Step { word: c.index * 2 + 1, ..step(32) });
        }
        steps.push(step(0));
    }
    steps
}

/// Appends `cases`, which share their first `depth` comparisons, to `sorted`.
fn level(cases: &[usize], depth: usize, steps: &[Vec<Step>], sorted: &mut Vec<usize>) {
    if cases.len() < 2 {
        sorted.extend(cases);
        return;
    }
    // Each group goes on with one comparison, that of its first case.
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for &case in cases {
        let Some(step) = steps[case].get(depth) else {
            // It needs no further conditions: what comes later in the profile goes behind it.
            groups.drain(..).for_each(|group| level(&group, depth + 1, steps, sorted));
            sorted.push(case);
            continue;
        };
        let place = groups.iter().position(|group| {
            let first = &steps[group[0]][depth];
            first.merges(step) || step.cmp(first) == Ordering::Less
        });
        match place {
            Some(place) if steps[groups[place][0]][depth].merges(step) => groups[place].push(case),
            Some(place) => groups.insert(place, vec![case]),
            None => groups.push(vec![case]),
        }
    }
    groups.into_iter().for_each(|group| level(&group, depth + 1, steps, sorted));
}
