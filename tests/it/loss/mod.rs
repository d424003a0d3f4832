//! A model test of loss: every public operation, over random chains of which a file becomes shorter at some moment,
//! returns an error or correct content. Borrowed bytes count after the library was asked whether they were lost.
#![cfg(all(feature = "ops", feature = "mmap", target_os = "linux"))]

mod early;
mod medium;
mod share;

use std::collections::BTreeMap;

use vhdx_testkit::loss::rounds::{Verdict, run};
use vhdx_testkit::loss::{chain, dice, operations, rounds};

use crate::kit::optional;
use crate::lab::{size, wide};
use crate::support::say;

/// Number of rounds for each chain.
const ROUNDS: usize = 40;

/// Returns the number in a variable of the environment, if it is set.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Number of answers of each kind that an operation gave, and the first wrong one.
#[derive(Default)]
struct Counts {
    right: u64,
    lost: u64,
    misnamed: u64,
    wrong: u64,
    example: Option<String>,
}

/// Runs chains with consecutive seeds, and fails if an operation gave a wrong answer, or an error that is not a loss.
fn run_seeds(chains: u64, is_quiet: bool) {
    let first = number("VHDX_LOSS_SEED").unwrap_or(1);
    let chains = number("VHDX_LOSS_CASES").unwrap_or_else(|| wide(optional::rounds(size(chains))));
    let mut all: BTreeMap<(&'static str, bool), Counts> = BTreeMap::new();
    for seed in first..first + chains {
        for round in run(&mut dice::Dice::new(seed), ROUNDS, is_quiet) {
            let counts = all.entry((round.operation, round.is_after_salvage)).or_default();
            let what = match round.verdict {
                Verdict::Right => {
                    counts.right += 1;
                    continue;
                }
                Verdict::Told => {
                    counts.lost += 1;
                    continue;
                }
                Verdict::Misnamed(what) => {
                    counts.misnamed += 1;
                    what
                }
                Verdict::Wrong(what) => {
                    // It is a better example than an error.
                    counts.example.take_if(|_| counts.wrong == 0);
                    counts.wrong += 1;
                    what
                }
            };
            let how = &round.how;
            counts.example.get_or_insert_with(|| format!("VHDX_LOSS_SEED={seed} VHDX_LOSS_CASES=1, {how}: {what}"));
        }
    }
    let table = table_of(&all);
    if std::env::var_os("VHDX_LOSS_TABLE").is_some() {
        say(&table);
    }
    let is_good = |counts: &Counts| counts.wrong == 0 && counts.misnamed == 0;
    assert!(all.values().all(is_good), "wrong answers\n{table}");
    // A run without damage, or with nothing but damage, shows nothing.
    let sum = |count: fn(&Counts) -> u64| all.values().map(count).sum::<u64>();
    assert!(
        chains < 20 || (sum(|counts| counts.right) > 0 && sum(|counts| counts.lost) > 0),
        "nothing is shown\n{table}"
    );
}

fn table_of(all: &BTreeMap<(&'static str, bool), Counts>) -> String {
    let mut table = format!("{:>6} {:>6} {:>8} {:>6}  operation\n", "right", "lost", "misnamed", "wrong");
    for ((operation, is_after_salvage), Counts { right, lost, misnamed, wrong, example }) in all {
        let after = if *is_after_salvage { ", after a salvage" } else { "" };
        table += &format!("{right:>6} {lost:>6} {misnamed:>8} {wrong:>6}  {operation}{after}\n");
        if let Some(example) = example {
            table += &format!("          {example}\n");
        }
    }
    table
}

#[test]
fn every_operation_is_correct_or_an_error() {
    run_seeds(60, false);
}

/// If a file is truncated inside its last page, no page is lost and no signal comes: in a process of its own, so that
/// no signal has come before.
#[test]
fn every_operation_detects_truncation_without_signal() {
    if std::env::var_os("VHDX_LOSS_QUIET").is_some() {
        return run_seeds(60, true);
    }
    let name = "loss::every_operation_detects_truncation_without_signal";
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture"]).env("VHDX_LOSS_QUIET", "1");
    let output = command.output().unwrap();
    if std::env::var_os("VHDX_LOSS_TABLE").is_some() {
        say(&String::from_utf8_lossy(&output.stderr));
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The bytes of a fuzzer choose a case like any other, and other bytes choose other cases. After their end, every
/// choice is the first one.
#[test]
fn bytes_choose_rounds_as_seeds_do() {
    let some: Vec<u8> = (0..1000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let mut all = Vec::new();
    for bytes in [&[][..], &[0xFF; 2000], &some] {
        let rounds = run(&mut dice::Dice::from_bytes(bytes), ROUNDS, false);
        assert_eq!(rounds.len(), ROUNDS);
        let bad = rounds.iter().find(|round| matches!(round.verdict, Verdict::Wrong(_) | Verdict::Misnamed(_)));
        assert!(bad.is_none(), "{bad:?}");
        all.push(rounds.into_iter().map(|round| round.how).collect::<Vec<_>>());
    }
    all.dedup();
    assert_eq!(all.len(), 3, "the bytes are ignored");
    let mut operations: Vec<&str> = all[2].iter().filter_map(|how| how.split(" (").next()).collect();
    operations.sort_unstable();
    operations.dedup();
    assert!(operations.len() > 10, "one byte chooses all: {operations:?}");
}
