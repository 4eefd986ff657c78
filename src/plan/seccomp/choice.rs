//! Turns the rules with conditions of one system call into tests of 32-bit words of its arguments, a directed graph that ends in actions.
//! Knows nothing of numbers and places in the program. Called by `plan::seccomp::bpf`.

use super::order::order;
use super::rules::{Condition, Rules};
use super::verdicts::{Case, Choice};
use oci_spec::runtime::LinuxSeccompOperator as Op;

/// A comparison of one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Test {
    /// The word with `mask` equals the value.
    Equal { mask: u32, value: u32 },
    /// The word is this value or more.
    AtLeast(u32),
}

/// Where a test leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Ret(u32),
    Node(usize),
}

/// A test of one word and what follows.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Twice the argument's index, plus one for the high word.
    pub word: u8,
    pub test: Test,
    pub then: Target,
    pub other: Target,
}

/// What a path has found out about a word.
type Fact = (u8, Test, bool);

/// The graph for `choice`: all nodes, each after those it leads to, and where to begin.
pub fn graph(choice: &Choice, cases: &[Case], rules: &Rules) -> (Vec<Node>, Target) {
    let cases = &cases[choice.cases.clone()];
    let conditions: Vec<Vec<Condition>> = cases.iter().map(|case| conditions(case, rules)).collect();
    let mut sequence: Vec<usize> = (0..cases.len()).collect();
    if cases.iter().any(|case| case.action != cases[0].action) {
        sequence = order(&conditions, choice.wide);
    }
    let mut graph = Graph { nodes: Vec::with_capacity(4 * cases.len()), wide: choice.wide };
    let mut begin = Target::Ret(rules.default);
    for &case in sequence.iter().rev() {
        begin = graph.rule(&conditions[case], Target::Ret(cases[case].action), begin, &mut Vec::new());
    }
    (graph.nodes, begin)
}

/// The conditions of a case, that on the number inside a carrier included.
fn conditions(case: &Case, rules: &Rules) -> Vec<Condition> {
    let own = &rules.conditions[case.conditions.start as usize..case.conditions.end as usize];
    let Some(call) = case.carried else { return own.to_vec() };
    let number = Condition { index: 0, op: Op::ScmpCmpEq, mask: u64::MAX, value: call.into() };
    std::iter::once(number).chain(own.iter().filter(|c| c.index != 0).copied()).collect()
}

struct Graph {
    nodes: Vec<Node>,
    wide: bool,
}

impl Graph {
    /// All of `conditions` must hold to reach `then`; `facts` holds before.
    fn rule(
        &mut self,
        conditions: &[Condition],
        then: Target,
        other: Target,
        facts: &mut Vec<Fact>,
    ) -> Target {
        let Some((condition, rest)) = conditions.split_first() else { return self.follow(then, facts) };
        let known = facts.len();
        facts.extend(self.certain(condition));
        let then = self.rule(rest, then, other, facts);
        facts.truncate(known);
        self.condition(condition, then, other, facts)
    }

    /// What is known of the words once `condition` holds.
    fn certain(&self, condition: &Condition) -> Vec<Fact> {
        if !matches!(condition.op, Op::ScmpCmpEq | Op::ScmpCmpMaskedEq) {
            return Vec::new();
        }
        let words = if self.wide { 0..2 } else { 0..1 };
        words
            .filter_map(|high| equal(condition, high).map(|test| (condition.index * 2 + high, test, true)))
            .collect()
    }

    fn condition(&mut self, c: &Condition, then: Target, other: Target, facts: &mut Vec<Fact>) -> Target {
        let (low, max) = (c.index * 2, if self.wide { u64::MAX } else { u32::MAX.into() });
        // On 32-bit architectures libseccomp cuts the value, too.
        let value = c.value & max;
        match c.op {
            Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => self.equal(c, then, other, facts),
            Op::ScmpCmpNe => self.equal(c, other, then, facts),
            Op::ScmpCmpGe => self.at_least(low, value, then, other, facts),
            Op::ScmpCmpLt => self.at_least(low, value, other, then, facts),
            Op::ScmpCmpGt if value == max => self.follow(other, facts),
            Op::ScmpCmpLe if value == max => self.follow(then, facts),
            Op::ScmpCmpGt => self.at_least(low, value + 1, then, other, facts),
            Op::ScmpCmpLe => self.at_least(low, value + 1, other, then, facts),
        }
    }

    fn equal(&mut self, c: &Condition, then: Target, other: Target, facts: &mut Vec<Fact>) -> Target {
        let high = equal(c, 1).filter(|_| self.wide).map(|test| (c.index * 2 + 1, test, true));
        let known = facts.len();
        facts.extend(high);
        let mut begin = then;
        if let Some(test) = equal(c, 0) {
            begin = self.node(c.index * 2, test, then, other, facts);
        }
        facts.truncate(known);
        if let Some((word, test, _)) = high {
            begin = self.node(word, test, begin, other, facts);
        }
        begin
    }

    fn at_least(
        &mut self,
        low: u8,
        value: u64,
        then: Target,
        other: Target,
        facts: &mut Vec<Fact>,
    ) -> Target {
        let (high_value, low_value) = ((value >> 32) as u32, value as u32);
        if !self.wide {
            return self.node(low, Test::AtLeast(low_value), then, other, facts);
        }
        let high = low + 1;
        if low_value == 0 {
            return self.node(high, Test::AtLeast(high_value), then, other, facts);
        }
        // Above, equal or below the high word of the value.
        let equal = Test::Equal { mask: u32::MAX, value: high_value };
        let above = high_value.checked_add(1).map(Test::AtLeast);
        let known = facts.len();
        facts.push((high, equal, true));
        let mut begin = self.node(low, Test::AtLeast(low_value), then, other, facts);
        facts.truncate(known);
        facts.extend(above.map(|test| (high, test, false)));
        begin = self.node(high, equal, begin, other, facts);
        facts.truncate(known);
        if let Some(test) = above {
            begin = self.node(high, test, then, begin, facts);
        }
        begin
    }

    /// A new node, unless the facts or the test itself decide it.
    fn node(&mut self, word: u8, test: Test, then: Target, other: Target, facts: &mut Vec<Fact>) -> Target {
        facts.push((word, test, true));
        let then = self.follow(then, facts);
        facts.pop();
        facts.push((word, test, false));
        let other = self.follow(other, facts);
        facts.pop();
        match decide(word, test, facts) {
            Some(true) => return then,
            Some(false) => return other,
            None if then == other => return then,
            None => {}
        }
        self.nodes.push(Node { word, test, then, other });
        Target::Node(self.nodes.len() - 1)
    }

    /// Skips the nodes that the facts decide.
    fn follow(&self, mut target: Target, facts: &[Fact]) -> Target {
        while let Target::Node(n) = target {
            let node = &self.nodes[n];
            match decide(node.word, node.test, facts) {
                Some(true) => target = node.then,
                Some(false) => target = node.other,
                None => break,
            }
        }
        target
    }
}

/// The test that the low (0) or high (1) word meets an equality; `None` where the mask leaves nothing to test.
fn equal(c: &Condition, high: u8) -> Option<Test> {
    let mask = (c.mask >> (32 * high)) as u32;
    let value = (c.value >> (32 * high)) as u32 & mask;
    (mask != 0).then_some(Test::Equal { mask, value })
}

/// What the facts say about a test, if anything.
fn decide(word: u8, test: Test, facts: &[Fact]) -> Option<bool> {
    if test == Test::AtLeast(0) {
        return Some(true);
    }
    facts.iter().filter(|fact| fact.0 == word).find_map(|&(_, fact, holds)| {
        if fact == test {
            return Some(holds);
        }
        let (from, to) = range(fact, holds)?;
        match test {
            Test::AtLeast(value) if from >= value => Some(true),
            Test::AtLeast(value) if to < value => Some(false),
            Test::Equal { mask, value } if from == to => Some(from & mask == value),
            Test::Equal { mask: u32::MAX, value } if value < from || value > to => Some(false),
            _ => None,
        }
    })
}

/// The values a fact leaves, where they are one range.
fn range(fact: Test, holds: bool) -> Option<(u32, u32)> {
    match (fact, holds) {
        (Test::Equal { mask: u32::MAX, value }, true) => Some((value, value)),
        (Test::AtLeast(value), true) => Some((value, u32::MAX)),
        (Test::AtLeast(value), false) => Some((0, value.checked_sub(1)?)),
        _ => None,
    }
}
