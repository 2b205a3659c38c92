use crate::detect::steps::steps;

/// Context of hits: their text and the words in the name of its column.
pub(crate) struct HitContext<'a> {
    column: &'a str,
    text: &'a str,
}

/// Number of characters before and after a hit whose words are its context.
const BEFORE: usize = 60;
const AFTER: usize = 20;

impl<'a> HitContext<'a> {
    /// Creates the context of a text. `column` is the output of [`normalize_words`] for the name of the column.
    pub(crate) fn new(column: &'a str, text: &'a str) -> Self {
        Self { column, text }
    }

    /// Returns whether one of these words, given in lower case, is near a hit or in the name of the column.
    pub(crate) fn mentions(&self, range: &std::ops::Range<usize>, words: &[&str]) -> bool {
        let from = self.text[..range.start].char_indices().rev().take(BEFORE).last().map_or(range.start, |(at, _)| at);
        let rest = &self.text[range.end..];
        let to = rest.char_indices().nth(AFTER).map_or(self.text.len(), |(at, _)| range.end + at);
        steps(to - from);
        let near = |part: &str| !part.is_empty() && contains_word(&self::normalize_words(part), words);
        contains_word(self.column, words) || near(&self.text[from..range.start]) || near(&self.text[range.end..to])
    }
}

/// Returns the words of a text in lower case with a space around each, or an empty string if there are none.
pub(crate) fn normalize_words(text: &str) -> String {
    let words = split_words(text);
    if words.is_empty() { String::new() } else { format!(" {} ", words.join(" ")) }
}

/// Returns whether the text, as returned by [`normalize_words`], contains one of these words as a whole. A phrase such
/// as `date of birth` also matches without its spaces.
fn contains_word(own: &str, words: &[&str]) -> bool {
    if own.is_empty() {
        return false;
    }
    words.iter().any(|word| own.contains(&format!(" {word} ")) || own.contains(&format!(" {} ", word.replace(' ', ""))))
}

/// Splits a text into words in lower case. Names like `dateOfBirth` and `date_of_birth` are split as well.
fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut lower) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && lower) {
            words.push(std::mem::take(&mut word));
        }
        lower = c.is_lowercase();
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_words_match_in_texts_and_column_names() {
        for text in ["her passport: ", "PASSPORT_NO", "passportNumber", "Reise-Passport"] {
            assert!(contains_word(&normalize_words(text), &["passport"]), "{text}");
        }
        for text in ["", "passports", "compassport", "port"] {
            assert!(!contains_word(&normalize_words(text), &["passport"]), "{text}");
        }
        for name in ["date_of_birth", "dateOfBirth", "Date of birth", "dateofbirth", "DATE-OF-BIRTH"] {
            assert!(contains_word(&normalize_words(name), &["date of birth"]), "{name}");
        }
    }

    #[test]
    fn only_words_near_the_hit_count() {
        let text = format!("passport {} 123456789", "é".repeat(100));
        let at = text.len() - 9..text.len();
        assert!(!HitContext::new("", &text).mentions(&at, &["passport"]));
        assert!(HitContext::new(&normalize_words("passport"), &text).mentions(&at, &["passport"]));
        let text = "123456789 is her passport";
        assert!(HitContext::new("", text).mentions(&(0..9), &["passport"]));
    }
}
