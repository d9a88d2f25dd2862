//! `README.md` says nothing that does not work: this test runs it.
//!
//! The scheme, for whoever edits the README:
//! - A fenced block marked `sh` is run, in the README's order, each by `bash -euo pipefail` in one temporary directory, with
//!   the `tollgate` of this build first on `PATH`.
//! - `cargo run --release -- X` in a block is run as `tollgate X`; `demo` stays in the background until the end.
//! - `git clone …`, `cd …`, `cargo test …`, `cargo build …` and `.ci/…` are not run here: CI is what runs them. The test
//!   command must be the one in `.ci/run`.
//! - A block marked `console` is the output of the `sh` block before it, line for line, as a real run gave it. `…` as a line
//!   of its own stands for any lines. Words are compared; what differs from run to run (words of a digit and more, save HTTP
//!   statuses) is not, and a line's repeated words count once.
//! - The demo's output shows a run's keys and addresses. Wherever later blocks name them, this run's are put in their place.
//! - A block marked with anything else, or with nothing, is text.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tests::{binary, until};

/// A fenced block: where it starts, what it is marked with, its lines.
#[derive(Debug)]
struct Block {
    line: usize,
    mark: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace").to_owned()
}

fn blocks(readme: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (n, line) in readme.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(mark), None) => open = Some(Block { line: n + 1, mark: mark.trim().to_owned(), text: String::new() }),
            (Some(_), Some(block)) => blocks.push(block),
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "README.md: a block is never closed: {open:?}");
    blocks
}

/// The demo, ended when dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Reader {
    dir: tempfile::TempDir,
    path: String,
    /// The README's word, and this run's in its place.
    words: Vec<(String, String)>,
    demo: Option<Demo>,
}

impl Reader {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).expect("make a directory for the binary");
        std::os::unix::fs::symlink(binary(), bin.join("tollgate")).expect("link the binary");
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        Self { dir, path, words: Vec::new(), demo: None }
    }

    /// Runs a block and returns what it printed; nothing when nothing of it is to be run.
    fn run(&mut self, block: &Block) -> Option<String> {
        let mut script = String::new();
        for line in block.text.lines() {
            let line = line.trim_end();
            match line.strip_prefix("cargo run --release -- ") {
                Some(rest) if rest.starts_with("demo") => return Some(self.start_demo(block, rest)),
                Some(rest) => script.push_str(&format!("tollgate {rest}\n")),
                None if ["git clone ", "cd ", "cargo ", ".ci/"].iter().any(|start| line.starts_with(start)) => {}
                None => script.push_str(&format!("{line}\n")),
            }
        }
        if script.trim().is_empty() {
            return None;
        }
        for (shown, real) in &self.words {
            script = script.replace(shown, real);
        }
        let mut bash = tests::command("bash");
        bash.args(["-euo", "pipefail", "-c", &script]).current_dir(self.dir.path()).env("PATH", &self.path);
        let done = bash.stdin(Stdio::null()).output().expect("run bash");
        let errors = String::from_utf8_lossy(&done.stderr);
        let output = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "README.md:{}: {}\n{script}\n{output}\n{errors}", block.line, done.status);
        Some(output)
    }

    /// Starts the demo and returns its guide, once it is complete.
    fn start_demo(&mut self, block: &Block, arguments: &str) -> String {
        assert!(self.demo.is_none(), "README.md:{}: the demo runs already", block.line);
        let log = self.dir.path().join("demo.out");
        let out = File::create(&log).expect("make a file for the demo's output");
        let errors = out.try_clone().expect("a second handle to the file");
        let mut command = tests::command(binary());
        command.args(arguments.split_whitespace()).current_dir(self.dir.path());
        let child = command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn().expect("start the demo");
        let demo = self.demo.insert(Demo(child));
        until("the demo's guide", || {
            let text = fs::read_to_string(&log).expect("read the demo's output");
            let ended = demo.0.try_wait().expect("the demo's status");
            assert!(ended.is_none(), "README.md:{}: the demo ended ({ended:?}):\n{text}", block.line);
            let (_, guide) = text.split_once("Tollgate is up.")?;
            let (guide, _) = guide.split_once("Ctrl-C ends it.")?;
            Some(format!("Tollgate is up.{guide}Ctrl-C ends it."))
        })
    }

    /// Remembers which words of the README's guide are which of this run.
    fn learn(&mut self, shown: &str, real: &str) {
        for (shown, real) in pairs(shown, real) {
            let words = |line: &str| -> Vec<String> {
                line.split(|c: char| c.is_whitespace() || "'\"=".contains(c)).map(str::to_owned).collect()
            };
            for (shown, real) in words(shown).into_iter().zip(words(real)) {
                let known = self.words.iter().any(|(known, _)| *known == shown);
                if shown != real && shown.len() > 8 && !known {
                    self.words.push((shown, real));
                }
            }
        }
        // `http://127.0.0.1:8080/v3` may be among them as well as `http://127.0.0.1:8080`: longest first.
        self.words.sort_by_key(|(shown, _)| std::cmp::Reverse(shown.len()));
    }
}

/// Lines that stand for each other, up to a `…`.
fn pairs<'a>(shown: &'a str, real: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    fn lines(text: &str) -> impl Iterator<Item = &str> {
        text.lines().filter(|line| !line.trim().is_empty())
    }
    lines(shown).take_while(|line| line.trim() != "…").zip(lines(real))
}

/// A line's words without what differs from run to run.
fn shape(line: &str) -> BTreeSet<&str> {
    let is_status = |word: &str, before: &str| {
        let place = before.is_empty() || before.ends_with([' ', '│']) || before.ends_with("\"status\":");
        word.len() == 3 && place && word.parse::<u16>().is_ok_and(|status| (100..600).contains(&status))
    };
    // An id's groups belong together: one of them may have letters only.
    let in_word = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    let mut words = BTreeSet::new();
    for (start, _) in line.match_indices(in_word) {
        if line[..start].ends_with(in_word) {
            continue;
        }
        let rest = &line[start..];
        let word = &rest[..rest.find(|c: char| !in_word(c)).unwrap_or(rest.len())];
        let varies = word.contains(|c: char| c.is_ascii_digit()) || DATES.contains(&word);
        if !varies || is_status(word, &line[..start]) {
            words.insert(word);
        }
    }
    words
}

/// Words of an HTTP date.
const DATES: [&str; 19] = [
    "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep",
    "Oct", "Nov", "Dec",
];

fn compare(block: &Block, real: &str) {
    let complain = |shown: &str, got: &str| {
        panic!(
            "README.md:{}: the output shown is not what comes\n  shown: {shown}\n  comes: {got}\nall that came:\n{real}",
            block.line
        )
    };
    let mut real_lines = real.lines().filter(|line| !line.trim().is_empty()).peekable();
    let mut any = false;
    for shown in block.text.lines().filter(|line| !line.trim().is_empty()) {
        if shown.trim() == "…" {
            any = true;
            continue;
        }
        let wanted = shape(shown);
        if any {
            while real_lines.peek().is_some_and(|line| shape(line) != wanted) {
                real_lines.next();
            }
            any = false;
        }
        let got = real_lines.next().unwrap_or("(nothing)");
        if shape(got) != wanted {
            complain(shown, got);
        }
    }
    if let Some(got) = real_lines.next().filter(|_| !any) {
        complain("(nothing)", got);
    }
}

#[test]
fn every_shell_block_of_the_readme_works_and_prints_what_it_shows() {
    let readme = fs::read_to_string(root().join("README.md")).expect("read README.md");
    for tool in ["bash", "curl"] {
        if Command::new(tool).arg("--version").output().is_err() {
            eprintln!("skipped: no {tool} on this machine");
            return;
        }
    }
    let mut reader = Reader::new();
    let mut output: Option<String> = None;
    let (mut ran, mut compared) = (0, 0);
    for block in blocks(&readme) {
        match block.mark.as_str() {
            "sh" => {
                output = reader.run(&block);
                ran += usize::from(output.is_some());
            }
            "console" => {
                let real = output.take();
                let real = real.unwrap_or_else(|| panic!("README.md:{}: output of no command", block.line));
                compare(&block, &real);
                if block.text.contains("Tollgate is up.") {
                    reader.learn(&block.text, &real);
                }
                compared += 1;
            }
            _ => {}
        }
    }
    assert!(reader.demo.is_some(), "README.md does not start the demo");
    assert!(
        ran >= 4 && compared >= 4,
        "README.md shows the demo and three calls: {ran} blocks run, {compared} compared"
    );
}

#[test]
fn ci_runs_the_readmes_own_test_command() {
    let readme = fs::read_to_string(root().join("README.md")).expect("read README.md");
    let ci = fs::read_to_string(root().join(".ci/run")).expect("read .ci/run");
    let blocks = blocks(&readme);
    let commands: Vec<&str> = blocks
        .iter()
        .filter(|block| block.mark == "sh")
        .flat_map(|block| block.text.lines())
        .filter(|line| line.starts_with("cargo test"))
        .collect();
    assert_eq!(commands.len(), 1, "README.md has one test command in an `sh` block: {commands:?}");
    assert!(ci.lines().any(|line| line.trim().starts_with(commands[0])), ".ci/run does not run `{}`", commands[0]);
}

#[test]
fn what_differs_from_run_to_run_is_not_compared_and_statuses_are() {
    assert_eq!(shape("HTTP/1.1 200 OK"), ["200", "HTTP", "OK"].into());
    assert_eq!(shape("200 200 429 200"), shape("200 429 429"));
    assert_ne!(shape("200 200"), shape("200 429"));
    assert_eq!(shape(r#"{"status":503,"duration_us":812}"#), shape(r#"{"status":503,"duration_us":1024}"#));
    assert_eq!(shape("date: Sat, 21 Nov 2026 06:16:35 GMT"), shape("date: Mon, 02 Mar 2027 16:00:00 GMT"));
    assert_ne!(shape("x-request-id: 01a1"), shape("request-id: 01a1"));
    assert_eq!(shape("id: 01a1-7aed-abcd-1"), shape("id: 01a2-7000-a9cd-2"));
}
