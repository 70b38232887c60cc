//! A process that takes training steps on request.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time until a line comes; compilers take tens of seconds.
const PATIENCE: Duration = Duration::from_secs(600);
/// Time to end once its input has.
const FAREWELL: Duration = Duration::from_secs(10);

/// An open contender.
pub(crate) struct Contender {
    /// What it calls itself.
    pub(crate) mode: String,
    pub(crate) params: u64,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    complaint: Arc<Mutex<String>>,
}

/// The answer to one request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// Time of each step in milliseconds.
    pub(crate) steps: Vec<f64>,
    pub(crate) rss_mib: u64,
    pub(crate) loss: f64,
}

impl Contender {
    /// Starts a process and waits until it is ready.
    pub(crate) fn start(mut command: Command) -> Result<Self, String> {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().map_err(|error| error.to_string())?;
        let stdin = child.stdin.take();
        let (sender, lines) = channel();
        let complaint = Arc::new(Mutex::new(String::new()));
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || each_line(stdout, |line| sender.send(line).is_ok()));
        }
        if let Some(stderr) = child.stderr.take() {
            let last = Arc::clone(&complaint);
            thread::spawn(move || each_line(stderr, |line| keep_last(&last, &line)));
        }
        let mut contender = Self { mode: String::new(), params: 0, child, stdin, lines, complaint };
        let line = contender.line()?;
        (contender.mode, contender.params) = parse_ready(&line).ok_or_else(|| unexpected(&line))?;
        Ok(contender)
    }

    /// Steps, and what they took.
    pub(crate) fn ask(&mut self, n_steps: usize) -> Result<Answer, String> {
        let stdin = self.stdin.as_mut().ok_or("its input is closed")?;
        let sent = writeln!(stdin, "go {n_steps}").and_then(|()| stdin.flush());
        sent.map_err(|error| format!("{error}: {}", self.last_complaint()))?;
        let line = self.line()?;
        let answer = parse_answer(&line).filter(|answer| answer.steps.len() == n_steps);
        answer.ok_or_else(|| unexpected(&line))
    }

    fn line(&self) -> Result<String, String> {
        self.lines.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer for {} seconds", PATIENCE.as_secs()),
            RecvTimeoutError::Disconnected => {
                // What it complained about may still be on its way.
                thread::sleep(Duration::from_millis(200));
                format!("it ended: {}", self.last_complaint())
            }
        })
    }

    fn last_complaint(&self) -> String {
        let complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if complaint.is_empty() { "without a word".into() } else { complaint.clone() }
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.stdin = None;
        let start = Instant::now();
        while let Ok(None) = self.child.try_wait() {
            if start.elapsed() > FAREWELL {
                // Nothing more can be done if even this fails.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Calls a function with each line until it says no.
fn each_line(stream: impl Read, mut line: impl FnMut(String) -> bool) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
        if !line(String::from_utf8_lossy(&bytes).trim_end().to_owned()) {
            return;
        }
        bytes.clear();
    }
}

fn keep_last(last: &Mutex<String>, line: &str) -> bool {
    if !line.trim().is_empty() {
        *last.lock().unwrap_or_else(PoisonError::into_inner) = line.trim().chars().take(200).collect();
    }
    true
}

fn unexpected(line: &str) -> String {
    format!("unexpected line `{}`", line.chars().take(100).collect::<String>())
}

/// `ready MODE params N`.
fn parse_ready(line: &str) -> Option<(String, u64)> {
    match *line.split_whitespace().collect::<Vec<_>>() {
        ["ready", mode, "params", params] => Some((mode.to_owned(), params.parse().ok()?)),
        _ => None,
    }
}

/// `t MS... rss MIB loss L`.
fn parse_answer(line: &str) -> Option<Answer> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (&["t", ref steps @ ..], &["rss", rss, "loss", loss]) = words.split_last_chunk::<4>()? else { return None };
    let steps = steps.iter().map(|word| word.parse().ok().filter(|ms: &f64| ms.is_finite() && *ms > 0.0));
    Some(Answer { steps: steps.collect::<Option<_>>()?, rss_mib: rss.parse().ok()?, loss: loss.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_protocol() {
        assert_eq!(parse_ready("ready eager-cl params 191450"), Some(("eager-cl".into(), 191_450)));
        assert_eq!(parse_ready("ready params 1"), None);
        let answer = Answer { steps: vec![1.5, 2.0], rss_mib: 100, loss: 2.25 };
        assert_eq!(parse_answer("t 1.500 2.000 rss 100 loss 2.2500"), Some(answer));
        assert!(parse_answer("t 1.5 rss 100 loss nan").unwrap().loss.is_nan());
        assert!(parse_answer("t rss 1 loss 0.0").unwrap().steps.is_empty());
        for line in ["", "t", "t 1.5", "t x rss 1 loss 1", "t -1 rss 1 loss 1", "t 1 rss loss 1", "1 2 rss 1 loss 1"] {
            assert_eq!(parse_answer(line), None, "{line}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn processes_that_fail_say_why() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            Contender::start(command)
        };
        let reason = |script| shell(script).err().unwrap();
        assert_eq!(reason("echo first >&2; echo no torch >&2; exit 1"), "it ended: no torch");
        assert_eq!(reason("exit 1"), "it ended: without a word");
        assert_eq!(reason("echo hello"), "unexpected line `hello`");
        let mut echo =
            shell("echo ready x params 7; read line; echo t 1 2 rss 3 loss 4; read line; exit 3").ok().unwrap();
        assert_eq!((echo.mode.as_str(), echo.params), ("x", 7));
        assert_eq!(echo.ask(2).unwrap().steps, [1.0, 2.0]);
        assert!(echo.ask(2).unwrap_err().starts_with("it ended"));
        assert!(Contender::start(Command::new("there-is-no-such-program")).is_err());
    }
}
