//! Lines and words of a text form, and what is wrong with them.

use crate::{CellError, NetworkError, Violations};

/// No text or JSON form may be longer.
pub const MAX_TEXT_BYTES: usize = 16 << 20;

/// Why a text form could not be read; says the line, the word and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The text is longer than [`MAX_TEXT_BYTES`].
    #[error("the text has {bytes} bytes, more than the {MAX_TEXT_BYTES} that are read")]
    TooLong {
        /// Length of the text.
        bytes: usize,
    },
    /// A word that does not belong where it stands.
    #[error("line {line}: `{word}`: expected {expected}")]
    Word {
        /// Line, from 1.
        line: usize,
        /// The word; long ones are cut.
        word: String,
        /// What could stand there.
        expected: String,
    },
    /// A line that ends too early.
    #[error("line {line} ends where {expected} is expected")]
    Missing {
        /// Line, from 1.
        line: usize,
        /// What should follow.
        expected: String,
    },
    /// A text without something that it must have.
    #[error("the text ends without {expected}")]
    End {
        /// What is missing.
        expected: String,
    },
    /// An edge or node that the cell refuses.
    #[error("line {line}: {source}")]
    Cell {
        /// Line, from 1.
        line: usize,
        /// Why.
        source: CellError,
    },
    /// A node that the network refuses.
    #[error("line {line}: {source}")]
    Network {
        /// Line, from 1.
        line: usize,
        /// Why.
        source: NetworkError,
    },
    /// An architecture that is not well-formed.
    #[error("not a well-formed architecture: {0}")]
    Architecture(Violations),
}

pub(crate) fn check_length(text: &str) -> Result<(), TextError> {
    let bytes = text.len();
    if bytes > MAX_TEXT_BYTES { Err(TextError::TooLong { bytes }) } else { Ok(()) }
}

/// Lines that have words, without their comments.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    text.lines().enumerate().filter_map(|(i, line)| {
        let code = line.split_once('#').map_or(line, |(code, _)| code);
        let rest = code.trim();
        (!rest.is_empty()).then_some(Line { number: i + 1, rest })
    })
}

/// What is left to read of one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    /// Line, from 1.
    pub(crate) number: usize,
    rest: &'a str,
}

impl<'a> Line<'a> {
    /// The next word, which stays.
    pub(crate) fn peek(&self) -> Option<&'a str> {
        self.rest.split_whitespace().next()
    }

    /// Takes the next word, if there is one.
    pub(crate) fn take(&mut self) -> Option<&'a str> {
        let word = self.peek()?;
        self.rest = self.rest.trim_start()[word.len()..].trim_start();
        Some(word)
    }

    /// Takes the next word, which must be there.
    pub(crate) fn word(&mut self, expected: &str) -> Result<&'a str, TextError> {
        self.take().ok_or_else(|| TextError::Missing { line: self.number, expected: expected.into() })
    }

    /// Takes the next word, which `parse` must understand.
    pub(crate) fn parse<T>(
        &mut self,
        expected: &str,
        parse: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, TextError> {
        let word = self.word(expected)?;
        parse(word).ok_or_else(|| self.unexpected(word, expected))
    }

    /// Takes the next word, which must be `literal`.
    pub(crate) fn literal(&mut self, literal: &str) -> Result<(), TextError> {
        self.parse(&format!("`{literal}`"), |word| (word == literal).then_some(()))
    }

    /// Nothing may be left.
    pub(crate) fn end(mut self) -> Result<(), TextError> {
        match self.take() {
            Some(word) => Err(self.unexpected(word, "the end of the line")),
            None => Ok(()),
        }
    }

    pub(crate) fn unexpected(&self, word: &str, expected: &str) -> TextError {
        let word = word.chars().take(40).flat_map(char::escape_debug).collect();
        TextError::Word { line: self.number, word, expected: expected.into() }
    }
}

/// `n14` as 14.
pub(crate) fn node_number<T: std::str::FromStr>(word: &str) -> Option<T> {
    digits(word.strip_prefix('n')?)
}

/// A number in decimal digits, without a sign.
pub(crate) fn digits<T: std::str::FromStr>(word: &str) -> Option<T> {
    word.starts_with(|c: char| c.is_ascii_digit()).then(|| word.parse().ok())?
}

/// `3x3` as 3.
pub(crate) fn square(word: &str) -> Option<usize> {
    let (height, width) = word.split_once('x')?;
    (height == width).then(|| digits(height))?
}

/// `conv3x3/16` with the prefix `conv` as (3, 16).
pub(crate) fn window_and_channels(word: &str, prefix: &str) -> Option<(usize, usize)> {
    let (window, channels) = word.strip_prefix(prefix)?.split_once('/')?;
    Some((square(window)?, digits(channels)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_skipped() {
        let found: Vec<(usize, Option<&str>)> =
            lines("# all\n\n  a b # c\n\t\nd#e").map(|line| (line.number, line.peek())).collect();
        assert_eq!(found, [(3, Some("a")), (5, Some("d"))]);
    }

    #[test]
    fn words_are_taken_in_turn() {
        let mut line = lines("  n1 =\tsep3x3  n0 ").next().unwrap();
        assert_eq!(line.parse("a node", node_number::<u16>), Ok(1));
        assert_eq!(line.literal("="), Ok(()));
        assert_eq!((line.take(), line.take(), line.take()), (Some("sep3x3"), Some("n0"), None));
        assert_eq!(line.word("more").unwrap_err().to_string(), "line 1 ends where more is expected");
        assert!(line.end().is_ok());
    }

    #[test]
    fn numbers_are_plain_digits() {
        assert_eq!((digits::<usize>("+3"), digits::<usize>(""), digits::<u16>("65536")), (None, None, None));
        assert_eq!((square("3x3"), square("3x5"), square("x"), square("+3x+3")), (Some(3), None, None, None));
        assert_eq!(window_and_channels("conv3x3/16", "conv"), Some((3, 16)));
        assert_eq!(window_and_channels("conv3x3", "conv"), None);
    }

    #[test]
    fn shown_words_are_short_and_harmless() {
        let long = format!("\u{1b}[31m{}", "x".repeat(1000));
        let line = Line { number: 7, rest: &long };
        let message = line.end().unwrap_err().to_string();
        assert!(message.len() < 120 && !message.contains('\u{1b}'), "{message}");
    }
}
