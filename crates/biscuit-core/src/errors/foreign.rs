//! Text from outside of the family: messages of parsers, which may quote values, and texts that a terminal would
//! interpret.

/// Removes from a parser message the text that the message quotes from the input.
///
/// The function is made for the messages of serde (`serde_json`, `toml`, YAML) and of parsers that quote in the same
/// way. It removes texts between double quotes and values between backquotes (``integer `5` ``). It keeps names of
/// fields and of variants, and positions such as `at line 3 column 7`. From a message of several lines it removes the
/// lines that show the input, which are indented or begin with a number and a bar, and joins the other lines.
///
/// ```
/// use biscuit_core::remove_quoted_text;
///
/// let said = "invalid type: string \"4711\", expected i64 at line 1 column 6";
/// assert_eq!(remove_quoted_text(said), "invalid type: string, expected i64 at line 1 column 6");
/// assert_eq!(remove_quoted_text("missing field `id`"), "missing field `id`");
/// ```
pub fn remove_quoted_text(message: &str) -> String {
    let shows_input =
        |line: &str| line.starts_with(' ') || line.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(" |");
    let lines = message.lines().filter(|line| !line.is_empty() && !shows_input(line));
    let lines: Vec<String> =
        lines.map(|line| remove_quoted_text_of_line(line).trim_end_matches(':').to_owned()).collect();
    lines.join(": ")
}

// Scans one line from quotation mark to quotation mark. Text in backquotes is kept if it is the name of a field or of
// a variant. All other quoted text is removed.
fn remove_quoted_text_of_line(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(['"', '`', '\'']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let quote = from.chars().next().unwrap_or('"');
        match find_closing_mark(&from[1..], quote) {
            Some(end) if quote == '`' && !quotes_a_value(&out) => {
                out.push_str(&from[..end + 2]);
                rest = &from[end + 2..];
            }
            // An apostrophe inside of a word, as in `can't`, does not begin a quotation.
            _ if quote == '\'' && before.ends_with(char::is_alphanumeric) => {
                out.push('\'');
                rest = &from[1..];
            }
            closed => {
                out.truncate(out.trim_end().len());
                // Without a closing mark, the whole rest of the line may be part of the value, so it is removed.
                rest = closed.map_or("", |end| &from[end + 2..]);
            }
        }
    }
    out.push_str(rest);
    out
}

/// Returns the position of the closing mark of a quotation. A double quotation is escaped as `Debug` escapes it: a
/// mark after a backslash does not close it. The other two marks are not escaped, and the first one closes the
/// quotation.
fn find_closing_mark(text: &str, quote: char) -> Option<usize> {
    if quote != '"' {
        return text.find(quote);
    }
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Some(at),
            _ => {}
        }
    }
    None
}

/// Returns whether the backquotes after this text contain a value, as opposed to the name of a field or of a type.
/// serde writes the kind of a value before the value, as in ``invalid type: integer `5` ``.
fn quotes_a_value(before: &str) -> bool {
    let before = before.trim_end();
    ["integer", "float", "floating point", "boolean", "character", "char", "byte", "value", "literal", "key"]
        .iter()
        .any(|word| before.ends_with(word))
}

/// Escapes control characters and marks of text direction (`\u{1b}`), so that the text is on one line and cannot
/// change the state of a terminal. Use it to print names and messages from outside.
///
/// ```
/// assert_eq!(biscuit_core::printable("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
/// ```
pub fn printable(text: &str) -> std::borrow::Cow<'_, str> {
    escape_characters(text, |_| false)
}

/// Like [`printable`], but keeps line ends and tabs, for a text of several lines.
pub fn printable_lines(text: &str) -> std::borrow::Cow<'_, str> {
    escape_characters(text, |c| matches!(c, '\n' | '\t'))
}

fn escape_characters(text: &str, stays: impl Fn(char) -> bool) -> std::borrow::Cow<'_, str> {
    let hidden = |c: char| is_hidden(c) && !stays(c);
    if !text.contains(hidden) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match hidden(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out.into()
}

/// Returns whether a character is a control character (C0, DEL, C1), a line or paragraph separator, a byte order
/// mark, or changes the direction of text (Unicode property `Bidi_Control`).
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unquoted_removes_values_and_keeps_names() {
        for (said, want) in [
            ("invalid value: integer `4711`, expected u8", "invalid value: integer, expected u8"),
            ("invalid type: floating point `4711.5`, expected u8", "invalid type: floating point, expected u8"),
            ("unknown variant `c`, expected one of `a`, `b`", "unknown variant `c`, expected one of `a`, `b`"),
            ("unknown field `nmae`, expected `name`", "unknown field `nmae`, expected `name`"),
            (r#"invalid type: string "a\"4711", expected i64"#, "invalid type: string, expected i64"),
            ("invalid type: string \"4711", "invalid type: string"),
            ("can't parse '4711' here", "can't parse here"),
            ("expected value at line 1 column 2", "expected value at line 1 column 2"),
            (
                "TOML parse error at line 2, column 7\n  |\n2 | key = 4711\n  |       ^^^^\ninvalid type: integer `4711`, expected a string\n",
                "TOML parse error at line 2, column 7: invalid type: integer, expected a string",
            ),
            ("regex parse error:\n    (4711\n    ^\nerror: unclosed group", "regex parse error: error: unclosed group"),
        ] {
            assert_eq!(remove_quoted_text(said), want);
        }
    }

    #[test]
    fn characters_that_control_a_terminal_are_escaped() {
        assert_eq!(printable("a\u{202e}b\u{9b}c\u{7f}\t"), "a\\u{202e}b\\u{9b}c\\u{7f}\\t");
        assert_eq!(printable_lines("a\nb\r\n"), "a\nb\\r\n");
        assert!(matches!(printable("Größe 漢字 🍪"), std::borrow::Cow::Borrowed(_)), "ordinary text is not copied");
    }
}
