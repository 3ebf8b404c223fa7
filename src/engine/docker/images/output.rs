//! The output of a build: its steps, and progress lines for the terminal.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::BuildError;

/// The most lines of output in the error of a failed build.
pub(super) const TAIL_LINES: usize = 30;

/// The progress of a build. Displays as one line for the terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The Debian image that the base image is built on, its origin, and the reason for the choice.
    Debian(String),
    /// The image is current and is not built.
    Current(String),
    /// The daemon starts a step.
    Step {
        /// The image's name.
        image: String,
        /// The step.
        step: Step,
    },
    /// The image is built.
    Built(Built),
}

/// One instruction of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The number of the step, from 1.
    pub number: usize,
    /// The number of steps.
    pub of: usize,
    /// The instruction in the Dockerfile, on one line.
    pub instruction: String,
}

/// An image that is current now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The image's name, without `oncebox/`.
    pub name: String,
    /// The duration of the build; `None` if the image was current.
    pub took: Option<Duration>,
}

/// Reads a build's output: finds the steps, and keeps the last lines.
#[derive(Debug, Default)]
pub(super) struct Output {
    partial: String,
    tail: VecDeque<String>,
    step: Option<Step>,
}

impl Output {
    /// Reads a piece of output, which may end within a line, and returns the steps that begin in it.
    pub(super) fn add(&mut self, piece: &str) -> Vec<Step> {
        let mut begun = Vec::new();
        self.partial.push_str(piece);
        while let Some(end) = self.partial.find('\n') {
            let line = self.partial.drain(..=end).collect::<String>().trim_end().to_owned();
            match parse_step(&line) {
                // A step that the daemon adds for our labels.
                Some(step) if step.instruction.starts_with("LABEL oncebox.") => {}
                Some(step) => {
                    self.step = Some(step.clone());
                    begun.push(step);
                }
                None => self.keep(line),
            }
        }
        begun
    }

    fn keep(&mut self, line: String) {
        // The builder's lines about its own containers do not help to find a failure.
        if !line.is_empty() && ![" ---> ", "Removing intermediate "].iter().any(|start| line.starts_with(start)) {
            self.tail.push_back(line);
            self.tail.drain(..self.tail.len().saturating_sub(TAIL_LINES));
        }
    }

    pub(super) fn failed(mut self, image: &str, message: String) -> BuildError {
        let rest = std::mem::take(&mut self.partial);
        self.keep(rest);
        BuildError::Step { image: image.to_owned(), step: self.step, message, tail: self.tail.into() }
    }
}

/// Parses a line of the classic builder such as `Step 3/7 : RUN make`.
fn parse_step(line: &str) -> Option<Step> {
    let (count, instruction) = line.strip_prefix("Step ")?.split_once(" : ")?;
    let (number, of) = count.split_once('/')?;
    let instruction = instruction.split_whitespace().collect::<Vec<_>>().join(" ");
    Some(Step { number: number.parse().ok()?, of: of.parse().ok()?, instruction })
}

/// The step at which a build failed. Displays as part of an error.
pub(super) struct At<'a>(pub(super) &'a Option<Step>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(step) => step.fmt(f),
            None => f.write_str("its start"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}/{}: ", self.number, self.of)?;
        match self.instruction.char_indices().nth(90) {
            Some((end, _)) => write!(f, "{} ...", self.instruction[..end].trim_end()),
            None => f.write_str(&self.instruction),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Debian(line) => write!(f, "{:<7} {line}", "debian"),
            Self::Current(image) => write!(f, "{image:<7} is current"),
            Self::Step { image, step } => write!(f, "{image:<7} {step}"),
            Self::Built(Built { name, took }) => {
                write!(f, "{name:<7} built in {:.1} s", took.unwrap_or_default().as_secs_f64())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_found_wherever_the_output_is_split() {
        let mut output = Output::default();
        assert_eq!(output.add("Step 1/2 : FROM scr"), []);
        let steps = output.add("atch\n ---> 123\nStep 3/3 : LABEL oncebox.image=a\nStep 2/2 : RUN a \t && b\nhello\n");
        let shown: Vec<_> = steps.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["step 1/2: FROM scratch", "step 2/2: RUN a && b"]);
        assert_eq!(parse_step("Step one : no"), None);
    }

    #[test]
    fn a_failure_names_its_step_and_keeps_the_last_lines() {
        let mut output = Output::default();
        output.add("Step 4/9 : RUN make\n");
        for number in 0..100 {
            output.add(&format!("line {number}\n\n"));
        }
        output.add("no end of line");
        let message = output.failed("some", "returned a non-zero code: 2".to_owned()).to_string();
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(lines[0], "image `some` failed at step 4/9: RUN make: returned a non-zero code: 2");
        assert_eq!(lines.len(), 1 + TAIL_LINES);
        assert_eq!((lines[1], lines[TAIL_LINES]), ("line 71", "no end of line"));
    }

    #[test]
    fn a_long_instruction_is_one_short_line() {
        let step = Step { number: 1, of: 1, instruction: "é".repeat(200) };
        let shown = Progress::Step { image: "base".to_owned(), step }.to_string();
        assert!(shown.ends_with("é ...") && shown.chars().count() < 120, "{shown}");
    }
}
