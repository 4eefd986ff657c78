//! Writes the program: classic BPF, from its end to its beginning, so that every jump knows its distance. Decides nothing about verdicts.
//! Called by `plan::seccomp::compile`.
//!
//! What it optimises: the kernel runs a new filter once for every number of the native and the compat ABI to learn which are always
//! allowed (kernel/seccomp.c, seccomp_cache_prepare), so the way to the verdict counts some 900 times per installation, and the length of
//! the program counts in checking and translating it. That run understands only loads of number and architecture, jumps against
//! constants and `and`; a bitmap looked up by a shift would end it.

use super::choice::{Node, Target, Test, graph};
use super::rules::Rules;
use super::verdicts::{Choices, Span, Verdict};
use seccompiler::sock_filter;

// linux/bpf_common.h
const LOAD: u16 = 0x20; // LD | W | ABS
const AND: u16 = 0x54; // ALU | AND | K
const JUMP: u16 = 0x05; // JMP | JA
const JUMP_EQUAL: u16 = 0x15; // JMP | JEQ | K
const JUMP_AT_LEAST: u16 = 0x35; // JMP | JGE | K
const JUMP_ANY: u16 = 0x45; // JMP | JSET | K
const RET: u16 = 0x06; // RET | K

// struct seccomp_data
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGS: u32 = 16;

/// A conditional jump reaches this far and a bit: the bit is for the one long jump that may come in between.
const NEAR: usize = 254;

/// A place in the program: how many instructions are from there to the end.
type Label = usize;

/// A program that grows towards its beginning.
pub struct Program {
    /// The last instruction first.
    reversed: Vec<sock_filter>,
    /// For each action: the newest `ret`.
    rets: Vec<(u32, Label)>,
    /// For each choice: where it begins.
    choices: Vec<Option<Label>>,
}

/// What the tree leads to.
struct Tree<'a> {
    rules: &'a Rules,
    choices: &'a Choices,
}

/// Numbers below this are those the kernel tries at installation (Linux 6.18: 470 and 470 on x86).
const TRIED: u32 = 470;

impl Program {
    /// An empty program for filters with this many choices.
    pub fn new(choices: usize) -> Program {
        Program {
            reversed: Vec::with_capacity(512),
            rets: Vec::with_capacity(8),
            choices: vec![None; choices],
        }
    }

    /// The finished program.
    pub fn finish(mut self) -> Vec<sock_filter> {
        self.reversed.reverse();
        self.reversed
    }

    /// Adds, before what is there: if the architecture, which is loaded, is `audit`, find the verdict in `spans`; else go on with what is
    /// there, the architecture still loaded.
    pub fn section(&mut self, audit: u32, spans: &[Span], rules: &Rules, choices: &Choices) {
        let other = self.top();
        let tree = Tree { rules, choices };
        // The choices go to the end of the section: then the tree is short enough for its jumps.
        for span in spans {
            if let Verdict::Choice(n) = span.verdict {
                self.choice(n, &tree);
            }
        }
        let begin = self.tree(spans, u32::MAX, &tree);
        self.fall_into(begin);
        self.push(LOAD, NUMBER);
        let begin = self.top();
        self.jump(JUMP_EQUAL, audit, begin, other);
    }

    /// Adds the load of the architecture, which comes first in the program.
    pub fn load_arch(&mut self) {
        self.push(LOAD, ARCH);
    }

    /// Adds a `ret`.
    pub fn ret(&mut self, action: u32) -> Label {
        let known = self.rets.iter_mut().find(|(known, _)| *known == action);
        let top = self.reversed.len();
        match known {
            Some((_, label)) if top - *label < NEAR => return *label,
            Some((_, label)) => *label = top + 1,
            None => self.rets.push((action, top + 1)),
        }
        self.push(RET, action);
        self.top()
    }

    fn top(&self) -> Label {
        self.reversed.len()
    }

    fn push(&mut self, code: u16, k: u32) {
        self.reversed.push(sock_filter { code, jt: 0, jf: 0, k });
    }

    /// Makes the next instruction to be added continue at `label`.
    fn fall_into(&mut self, label: Label) {
        if label != self.top() {
            let distance = self.top() - label;
            self.push(JUMP, distance as u32);
        }
    }

    /// A place from where a conditional jump reaches `label`.
    fn near(&mut self, label: Label) -> Label {
        if self.top() - label < NEAR {
            return label;
        }
        self.fall_into(label);
        self.top()
    }

    fn jump(&mut self, code: u16, k: u32, then: Label, other: Label) -> Label {
        let (then, other) = (self.near(then), self.near(other));
        let top = self.top();
        self.reversed.push(sock_filter { code, jt: (top - then) as u8, jf: (top - other) as u8, k });
        self.top()
    }

    fn leaf(&mut self, verdict: Verdict, tree: &Tree) -> Label {
        match verdict {
            Verdict::Ret(action) => self.ret(action),
            Verdict::Choice(n) => self.choice(n, tree),
        }
    }

    /// Decides between the spans, of which the first one's lower bound is known to hold and the last one ends before `end`.
    fn tree(&mut self, spans: &[Span], end: u32, tree: &Tree) -> Label {
        if spans.len() == 1 {
            return self.leaf(spans[0].verdict, tree);
        }
        if let Some(label) = self.exceptions(spans, end, tree) {
            return label;
        }
        let (lower, upper) = spans.split_at(split(spans, end));
        let upper_label = self.tree(upper, end, tree);
        let lower_label = self.tree(lower, upper[0].start, tree);
        self.jump(JUMP_AT_LEAST, upper[0].start, upper_label, lower_label)
    }

    /// A few single numbers within one verdict: a test each is shorter than two bounds each. A way of up to eight tests is fine where the
    /// kernel tries few numbers.
    fn exceptions(&mut self, spans: &[Span], end: u32, tree: &Tree) -> Option<Label> {
        let within = spans[0].verdict;
        let single = |n: usize| n + 1 < spans.len() && spans[n + 1].start == spans[n].start + 1;
        let tried = end.min(TRIED) - spans[0].start.min(TRIED);
        let fits = spans.len() <= if tried < 64 { 17 } else { 7 }
            && spans.len() % 2 == 1
            && (0..spans.len()).all(|n| if n % 2 == 0 { spans[n].verdict == within } else { single(n) });
        if !fits {
            return None;
        }
        let mut label = self.leaf(within, tree);
        for span in spans.iter().skip(1).step_by(2) {
            let then = self.leaf(span.verdict, tree);
            label = self.jump(JUMP_EQUAL, span.start, then, label);
        }
        Some(label)
    }

    /// The code of a choice; once for all who need it.
    fn choice(&mut self, n: u16, tree: &Tree) -> Label {
        if let Some(label) = self.choices[usize::from(n)] {
            return label;
        }
        let (nodes, begin) = graph(&tree.choices.list[usize::from(n)], &tree.choices.cases, tree.rules);
        let label = self.nodes(&nodes, begin);
        self.choices[usize::from(n)] = Some(label);
        label
    }

    /// The code of the nodes that can be reached from `begin`; what is loaded before is unknown.
    fn nodes(&mut self, nodes: &[Node], begin: Target) -> Label {
        // Whether a node is needed, and whether by someone who does not come with its word loaded.
        let mut needed = vec![false; nodes.len()];
        let mut loads = vec![false; nodes.len()];
        if let Target::Node(n) = begin {
            (needed[n], loads[n]) = (true, true);
        }
        // Nodes come after those they lead to.
        for (n, node) in nodes.iter().enumerate().rev() {
            for target in [node.then, node.other] {
                if let (true, Target::Node(to)) = (needed[n], target) {
                    needed[to] = true;
                    loads[to] |= !keeps(node) || nodes[to].word != node.word;
                }
            }
        }
        // Of each node: with its word loaded, and the load before it.
        let mut labels: Vec<(Label, Label)> = vec![(0, 0); nodes.len()];
        for (n, node) in nodes.iter().enumerate().filter(|(n, _)| needed[*n]) {
            let mut place = |target: Target| match target {
                Target::Ret(action) => self.ret(action),
                Target::Node(to) if keeps(node) && nodes[to].word == node.word => labels[to].0,
                Target::Node(to) => labels[to].1,
            };
            let (then, other) = (place(node.then), place(node.other));
            let mut label = match node.test {
                Test::AtLeast(value) => self.jump(JUMP_AT_LEAST, value, then, other),
                Test::Equal { mask: u32::MAX, value } => self.jump(JUMP_EQUAL, value, then, other),
                Test::Equal { mask, value: 0 } => self.jump(JUMP_ANY, mask, other, then),
                Test::Equal { value, .. } => self.jump(JUMP_EQUAL, value, then, other),
            };
            if let (Test::Equal { mask, .. }, false) = (node.test, keeps(node)) {
                self.push(AND, mask);
                label = self.top();
            }
            labels[n] = (label, label);
            if loads[n] {
                self.push(LOAD, ARGS + 4 * u32::from(node.word));
                labels[n].1 = self.top();
            }
        }
        match begin {
            Target::Ret(action) => self.ret(action),
            Target::Node(n) => labels[n].1,
        }
    }
}

/// Whether the word is still loaded after the test.
fn keeps(node: &Node) -> bool {
    !matches!(node.test, Test::Equal { mask, value } if mask != u32::MAX && value != 0)
}

/// Where to cut: half of the numbers the kernel will try on each side, and where it tries none, half of the spans. Only if need be
/// beside an exception, which would then take two tests: an instruction costs about as much as one more step for thirty numbers.
fn split(spans: &[Span], end: u32) -> usize {
    let end = |n: usize| spans.get(n + 1).map_or(end, |next| next.start);
    // What the spans before `n` weigh: 64 for each number that the kernel tries and 1 for themselves.
    let first = spans[0].start.min(TRIED);
    let below = |n: usize, start: u32| 64 * (start.min(TRIED) - first) + n as u32;
    let exception = |n: usize| {
        n > 0
            && n + 1 < spans.len()
            && spans[n + 1].start - spans[n].start == 1
            && spans[n - 1].verdict == spans[n + 1].verdict
    };
    let total = below(spans.len(), end(spans.len() - 1));
    let (mut best, mut least) = (1, u32::MAX);
    let mut before = false;
    for (n, span) in spans.iter().enumerate().skip(1) {
        let here = exception(n);
        let cost = total.abs_diff(2 * below(n, span.start)) + if before || here { total } else { 0 };
        if cost < least {
            (best, least) = (n, cost);
        }
        before = here;
    }
    best
}
