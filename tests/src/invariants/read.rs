//! P4: reads are linearizable. Judged by stateright's tester, register by register (linearizability is local: Herlihy and
//! Wing, 1990), each with a history short enough to be searched whole.

use std::collections::BTreeMap;

use stateright::semantics::{
    ConsistencyTester, LinearizabilityTester,
    register::{Register, RegisterOp, RegisterRet},
};

use super::Violation;

const LAW: &str = "linearizable reads";

#[derive(Debug)]
struct Op {
    register: u64,
    /// None for a read.
    wrote: Option<u64>,
    begun: u64,
    ended: Option<u64>,
    read: u64,
}

/// What was done with each register.
#[derive(Debug, Default)]
pub struct Reads {
    ops: Vec<Op>,
    begun: u64,
}

impl Reads {
    /// The register to use now; each is used for so many operations.
    pub fn register(&mut self, ops: u64) -> u64 {
        self.begun += 1;
        self.begun / ops
    }

    fn push(&mut self, register: u64, wrote: Option<u64>, begun: u64) -> usize {
        self.ops.push(Op { register, wrote, begun, ended: None, read: 0 });
        self.ops.len() - 1
    }

    /// A write begins.
    pub fn write_begun(&mut self, register: u64, value: u64, at: u64) -> usize {
        self.push(register, Some(value), at)
    }

    /// It was answered.
    pub fn write_ended(&mut self, op: usize, at: u64) {
        self.ops[op].ended = Some(at);
    }

    /// A read begins.
    pub fn read_begun(&mut self, register: u64, at: u64) -> usize {
        self.push(register, None, at)
    }

    /// It was answered; 0 for a register that was never written.
    pub fn read_ended(&mut self, op: usize, value: u64, at: u64) {
        (self.ops[op].ended, self.ops[op].read) = (Some(at), value);
    }

    /// Judges every register's history.
    ///
    /// # Errors
    /// One that no order of its operations explains.
    pub fn check(&self) -> Result<(), Violation> {
        let mut histories: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (number, op) in self.ops.iter().enumerate() {
            // A read without an answer says nothing; a write without one may have happened.
            if op.ended.is_some() || op.wrote.is_some() {
                histories.entry(op.register).or_default().push(number);
            }
        }
        for (register, ops) in histories {
            let mut events: Vec<(u64, usize, bool)> = Vec::new();
            for number in ops {
                events.push((self.ops[number].begun, number, true));
                events.extend(self.ops[number].ended.map(|ended| (ended, number, false)));
            }
            events.sort_unstable();
            let mut tester = LinearizabilityTester::new(Register(0u64));
            for (_, number, begins) in &events {
                let op = &self.ops[*number];
                let told = match (begins, op.wrote) {
                    (true, Some(value)) => tester.on_invoke(*number, RegisterOp::Write(value)),
                    (true, None) => tester.on_invoke(*number, RegisterOp::Read),
                    (false, Some(_)) => tester.on_return(*number, RegisterRet::WriteOk),
                    (false, None) => tester.on_return(*number, RegisterRet::ReadOk(op.read)),
                };
                told.expect("each operation is begun once and ended once");
            }
            if !tester.is_consistent() {
                let text: Vec<String> = events
                    .iter()
                    .map(|(at, number, begins)| {
                        let op = &self.ops[*number];
                        let what = op.wrote.map_or(format!("read {}", op.read), |value| format!("write {value}"));
                        format!("{at}: {} {what} (#{number})", if *begins { "begins" } else { "ended" })
                    })
                    .collect();
                return Err(Violation { law: LAW, what: format!("register {register}: {}", text.join("; ")) });
            }
        }
        Ok(())
    }
}
